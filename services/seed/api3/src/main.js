// api3: reads the telemetry out of MySQL and pushes it to pages over Socket.IO.

import { build } from "./app.js";
import { run } from "./service/life.js";

await run({ apiName: "api3", port: 8080, version: "1.0.0" }, build);
