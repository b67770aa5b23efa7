// The application without a database: what is answered before one is asked.

import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { after, before, test } from "node:test";

import { build } from "../src/app.js";
import { isJson, MAX_BODY } from "../src/body.js";
import { readConfig } from "../src/service/config.js";
import { createService, watch } from "../src/service/life.js";
import { pageOf } from "../src/service/read.js";

const JSON_TYPE = { "Content-Type": "application/json" };

/** The application on a port of its own. */
async function start(env = {}) {
  const config = readConfig(
    { apiName: "api2", port: 3000 },
    // Port 1 on loopback: nobody listens there.
    { DB_USER: "u", DB_PASSWORD: "p", DB_HOST: "127.0.0.1", DB_PORT: "1", DB_ACQUIRE_TIMEOUT_MS: "50", ...env },
  );
  const service = createService(config, "test");
  const server = createServer();
  const connections = watch(server);
  build(service, server);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const call = (method, path, headers = {}, body = undefined) =>
    fetch(`http://127.0.0.1:${server.address().port}${path}`, { method, headers, body });
  const stop = async () => {
    server.close();
    connections.finish();
    await service.db.close(1000);
  };
  return { service, server, call, stop };
}

let api;
before(async () => {
  api = await start();
});
after(() => api.stop());

for (const [value, json] of [
  ["application/json", true],
  ["Application/JSON; charset=UTF-8", true],
  ['application/json;charset="utf-8"', true],
  ["application/vnd.telemetry+json", true],
  ["application/json; charset=latin1", false],
  ["text/json", false],
  ["application/x-www-form-urlencoded", false],
  ["", false],
  [undefined, false],
]) {
  test(`${value} is ${json ? "" : "not "}JSON`, () => assert.equal(isJson(value), json));
}

test("pages", () => {
  const page = (query) => pageOf(new Map(Object.entries(query)), 1000);
  assert.deepEqual(page({}), { limit: 100, after: null });
  assert.deepEqual(page({ limit: "1", after: "0" }), { limit: 1, after: 0n });
  assert.deepEqual(page({ limit: "1000", after: "9223372036854775807" }), {
    limit: 1000,
    after: 9223372036854775807n,
  });
  for (const bad of [
    { limit: "0" },
    { limit: "1001" },
    { limit: "1_0" },
    { limit: "" },
    { after: "-1" },
    { after: "9223372036854775808" },
    { after: "1.0" },
  ]) {
    assert.throws(
      () => page(bad),
      ({ status, errors }) => status === 422 && errors[0].field === Object.keys(bad)[0],
    );
  }
});

for (const [status, method, path, headers, body] of [
  [415, "POST", "/api", {}, "{}"],
  [400, "POST", "/api", JSON_TYPE, "{"],
  [422, "POST", "/api", JSON_TYPE, "{}"],
  [413, "POST", "/api", JSON_TYPE, " ".repeat(MAX_BODY + 1)],
  [422, "POST", "/api", { ...JSON_TYPE, "Idempotency-Key": "x".repeat(65) }, "{}"],
  [405, "PUT", "/api"],
  [405, "GET", "/api"],
  [404, "GET", "/apix"],
  [404, "GET", "/api/"],
  [404, "GET", "/%ff"],
]) {
  test(`${method} ${path} is answered ${status} before the database is asked`, async () => {
    const answer = await api.call(method, path, headers, body);
    assert.equal(answer.status, status);
    assert.equal(answer.headers.get("content-type"), "application/problem+json");
    const problem = await answer.json();
    assert.deepEqual([problem.type, problem.status], ["about:blank", status]);
    if (status === 405) assert.equal(answer.headers.get("allow"), "POST, OPTIONS");
  });
}

test("a key that is there twice is refused", async () => {
  const problem = await new Promise((resolve, reject) => {
    const headers = { ...JSON_TYPE, "Idempotency-Key": ["a", "b"] };
    const sent = request(
      { port: api.server.address().port, path: "/api", method: "POST", headers },
      (answer) => {
        let text = "";
        answer.on("data", (chunk) => (text += chunk));
        answer.on("end", () => resolve(JSON.parse(text)));
      },
    );
    sent.on("error", reject);
    sent.end("{}");
  });
  assert.deepEqual(problem.errors, [{ field: "Idempotency-Key", message: "is there twice" }]);
});

test("without a database it is alive and not ready", async () => {
  const own = await start();
  assert.equal(await (await own.call("GET", "/healthz")).text(), "ok\n");
  for (const path of ["/readyz", "/api/records"]) {
    const answer = await own.call("GET", path);
    assert.equal(answer.status, 503);
    assert.equal(answer.headers.get("retry-after"), "1");
  }
  assert.match(await (await own.call("GET", "/metrics")).text(), /telemetry_db_up\{api="api2"\} 0/);
  own.service.draining = true;
  const answer = await own.call("GET", "/readyz");
  assert.equal(answer.status, 503);
  assert.equal(await answer.text(), "stopping\n");
  assert.equal(answer.headers.get("connection"), "close");
  await own.stop();
});

for (const [configured, origin, allowed] of [
  ["*", "http://x", "*"],
  ["http://a.example", "http://a.example", "http://a.example"],
  ["http://a.example", "http://b.example", null],
  ["", "http://x", null],
]) {
  test(`CORS ${configured} for ${origin}`, async () => {
    const own = await start({ CORS_ORIGIN: configured });
    const plain = await own.call("GET", "/healthz", { Origin: origin });
    const preflight = await own.call("OPTIONS", "/api", {
      Origin: origin,
      "Access-Control-Request-Method": "POST",
    });
    assert.equal(preflight.status, 204);
    for (const { headers } of [plain, preflight]) {
      assert.equal(headers.get("access-control-allow-origin"), allowed);
      assert.equal(headers.get("vary"), configured.includes("example") ? "Origin" : null);
    }
    assert.equal(preflight.headers.has("access-control-allow-headers"), allowed !== null);
    await own.stop();
  });
}
