// api2: accepts telemetry records and writes them to MySQL, stamped with its name.

import { build } from "./app.js";
import { run } from "./service/life.js";
import { pruneForever } from "./write.js";

await run({ apiName: "api2", port: 3000, version: "1.0.0" }, (service, server) => {
  build(service, server);
  pruneForever(service.db);
});
