import assert from "node:assert/strict";
import { test } from "node:test";

import { DbLate, Fault, fault } from "../src/service/db.js";
import { KeyLocks, KeyReused, parseKey } from "../src/write.js";

for (const [value, key] of [
  ["a", "a"],
  [" with blank ", "with blank"],
  ["x".repeat(64), "x".repeat(64)],
  ["x".repeat(65), undefined],
  ["", undefined],
  ["   ", undefined],
  ["tab\tbed", undefined],
  ["ñ", undefined],
]) {
  test(`the key ${JSON.stringify(value)}`, () => assert.equal(parseKey(value), key));
}

test("the same key takes turns, and nothing stays behind", async () => {
  const locks = new KeyLocks();
  const order = [];
  let go;
  const gate = new Promise((resolve) => (go = resolve));
  const work = (name) => async () => {
    order.push(name);
    await gate;
    return name;
  };
  const first = locks.turn("k", 10_000, work("first"));
  // A wait that is given up neither blocks the next one nor lets it pass.
  const given = locks.turn("k", 0, work("given up"));
  const second = locks.turn("k", 10_000, work("second"));
  const other = locks.turn("other", 10_000, work("other"));
  await assert.rejects(given, DbLate);
  assert.deepEqual(order, ["first", "other"]);
  go();
  assert.deepEqual(await Promise.all([first, second, other]), ["first", "second", "other"]);
  assert.deepEqual(order, ["first", "other", "second"]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(locks.size, 0);
});

test("work that fails lets the next one go", async () => {
  const locks = new KeyLocks();
  const failing = locks.turn("k", 1000, () => Promise.reject(new Error("no")));
  const next = locks.turn("k", 1000, async () => "yes");
  await assert.rejects(failing, /no/);
  assert.equal(await next, "yes");
});

for (const [error, meaning] of [
  [{ errno: 1062, sqlState: "23000" }, Fault.DUPLICATE],
  [{ errno: 1213, sqlState: "40001" }, Fault.ROLLED_BACK],
  [{ errno: 1040, sqlState: "08004" }, Fault.AWAY],
  [{ errno: 1146, sqlState: "42S02" }, Fault.AWAY],
  [{ errno: 1064, sqlState: "42000" }, Fault.REFUSED],
  [{ code: "ECONNRESET", errno: -104 }, Fault.AWAY],
  [{ code: "PROTOCOL_CONNECTION_LOST", fatal: true }, Fault.AWAY],
  [new TypeError("a bug"), Fault.NONE],
  [new KeyReused(), Fault.NONE],
]) {
  test(`${error.code ?? error.errno ?? error.message} means ${meaning}`, () => {
    assert.equal(fault(error), meaning);
  });
}
