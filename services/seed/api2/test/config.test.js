import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import { ConfigError, readConfig } from "../src/service/config.js";

const DEFAULTS = { apiName: "api2", port: 3000 };
const BASE = { DB_USER: "app", DB_PASSWORD: "" };
const read = (env) => readConfig(DEFAULTS, { ...BASE, ...env });

test("defaults need only the credentials", () => {
  const config = read({});
  assert.deepEqual([config.port, config.apiName], [3000, "api2"]);
  const { host, port, name, poolMax, acquireTimeoutMs } = config.database;
  assert.deepEqual([host, port, name, poolMax, acquireTimeoutMs], ["cloudsql", 3306, "telemetry", 10, 2000]);
  assert.equal(config.corsOrigins, undefined);
  assert.equal(config.logLevel, "info");
});

test("every problem is told at once, and no secret", () => {
  const env = {
    DB_PASSWORD: "hunter2",
    DB_PORT: "0",
    PORT: "http",
    API_NAME: "x".repeat(33),
    CORS_ORIGIN: "example.com",
    LOG_LEVEL: "loud",
    DB_POOL_MAX: "-1",
  };
  assert.throws(
    () => readConfig(DEFAULTS, env),
    (error) => {
      assert.ok(error instanceof ConfigError);
      assert.deepEqual(
        error.problems.map((problem) => problem.split(" ")[0]),
        ["DB_PORT", "DB_USER", "DB_POOL_MAX", "PORT", "API_NAME", "CORS_ORIGIN", "LOG_LEVEL"],
      );
      assert.ok(!error.message.includes("hunter2"));
      return true;
    },
  );
});

test("a missing password is a problem, an empty one is not", () => {
  assert.throws(() => readConfig(DEFAULTS, { DB_USER: "app" }), /DB_PASSWORD is not set/);
});

test("a secret keeps its blanks and stays hidden", () => {
  const { database } = read({ DB_PASSWORD: " s3cret " });
  assert.equal(database.password.reveal(), " s3cret ");
  assert.ok(!inspect(database).includes("s3cret"));
  assert.ok(!JSON.stringify(database).includes("s3cret"));
});

test("what is no UTF-8 is told", () => {
  assert.throws(() => read({ DB_HOST: "db\ufffd" }), /DB_HOST is not valid UTF-8/);
});

for (const [given, origins] of [
  ["*", ["*"]],
  ["http://A.example:8080/, https://b.example", ["http://a.example:8080", "https://b.example"]],
  [" ", undefined],
]) {
  test(`CORS_ORIGIN ${JSON.stringify(given)}`, () => {
    assert.deepEqual(read({ CORS_ORIGIN: given }).corsOrigins, origins);
  });
}

for (const [given, level] of [
  ["WARNING", "warn"],
  ["critical", "error"],
  ["silly", "debug"],
  ["info,telemetry=debug", "info"],
  ["telemetry=debug,warn", "warn"],
  ["telemetry=debug", "error"],
]) {
  test(`LOG_LEVEL ${given}`, () => assert.equal(read({ LOG_LEVEL: given }).logLevel, level));
}
