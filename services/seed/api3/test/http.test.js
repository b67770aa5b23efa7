// The application without a database: what is answered and told before one is asked.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { build } from "../src/app.js";
import { readConfig } from "../src/service/config.js";
import { createService, watch } from "../src/service/life.js";

/** The application on a port of its own. */
async function start(env = {}) {
  const config = readConfig(
    { apiName: "api3", port: 8080 },
    // Port 1 on loopback: nobody listens there.
    { DB_USER: "u", DB_PASSWORD: "p", DB_HOST: "127.0.0.1", DB_PORT: "1", DB_ACQUIRE_TIMEOUT_MS: "50", ...env },
  );
  const service = createService(config, "test");
  const server = createServer();
  const { farewell } = build(service, server);
  const connections = watch(server);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const call = (method, path, headers = {}, body = undefined) =>
    fetch(`http://127.0.0.1:${server.address().port}${path}`, { method, headers, body });
  const stop = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    farewell();
    connections.finish();
    await closed;
    await service.db.close(1000);
  };
  return { service, call, stop };
}

let api;
before(async () => {
  api = await start({ CORS_ORIGIN: "*" });
});
after(() => api.stop());

for (const [status, method, path] of [
  [422, "GET", "/api3/stats?window_s=0"],
  [422, "GET", "/api3/stats?window_s=86401"],
  [422, "GET", "/api3/stats?window_s=%zz"],
  [422, "GET", "/api3/records?limit=501"],
  [405, "POST", "/api3/stats"],
  [404, "GET", "/api3"],
  [503, "GET", "/api3/stats"],
  [503, "GET", "/api3/records"],
  [503, "GET", "/readyz"],
]) {
  test(`${method} ${path} is answered ${status}`, async () => {
    const answer = await api.call(method, path);
    assert.equal(answer.status, status);
    assert.equal(answer.headers.get("content-type"), "application/problem+json");
    assert.equal((await answer.json()).status, status);
    assert.equal(answer.headers.get("retry-after"), status === 503 ? "1" : null);
  });
}

test("a page is told that the database is away, over polling, and counted", async () => {
  const path = "/socket.io/?EIO=4&transport=polling";
  const opened = await api.call("GET", path, { Origin: "http://page.example" });
  assert.equal(opened.headers.get("access-control-allow-origin"), "*");
  const { sid } = JSON.parse((await opened.text()).slice(1));
  const session = `${path}&sid=${sid}`;
  assert.equal(await (await api.call("POST", session, {}, "40")).text(), "ok");
  assert.equal(
    await (await api.call("POST", session, {}, '421["request-metrics",{"limit":0}]')).text(),
    "ok",
  );
  let seen = "";
  while (!seen.includes("metrics-error") || !seen.includes('43')) {
    seen += await (await api.call("GET", session)).text();
  }
  assert.match(seen, /42\["metrics-error",\{"message":"[^"]+","retry_in_ms":250\}\]/);
  assert.match(seen, /431\[\{"error":\{"message":"limit is 0; expected 1 to 500"\}\}\]/);
  assert.match(
    await (await api.call("GET", "/metrics")).text(),
    /telemetry_http_requests_total\{api="api3",route="\/socket\.io",method="POST",status="200"\} 2/,
  );
});

test("a page's preflight is answered once, by the service", async () => {
  const answer = await api.call("OPTIONS", "/socket.io/?EIO=4&transport=polling", {
    Origin: "http://page.example",
    "Access-Control-Request-Method": "POST",
  });
  assert.equal(answer.status, 204);
  assert.equal(answer.headers.get("access-control-allow-origin"), "*");
});
