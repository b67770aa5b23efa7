import assert from "node:assert/strict";
import { test } from "node:test";

import { Told } from "../src/live.js";
import { GAP_LIVES_MS, MAX_GAPS, object, shares, Tally, total } from "../src/tally.js";

const rows = (ids) =>
  ids.map((id) => ({ id, api: id % 2 === 0 ? "b" : "a", second: Math.floor(id / 10) }));
const gaps = (tally) => tally.gaps.map(({ first, last }) => [first, last]);

test("rows in order are counted once", () => {
  const tally = new Tally();
  assert.equal(tally.add(rows([1, 2, 3]), 0), 3);
  assert.equal(tally.add(rows([2, 3, 4]), 0), 1, "seen rows don't count again");
  assert.deepEqual(object(tally.counts), { a: 2, b: 2 });
  assert.deepEqual([tally.lastId, gaps(tally)], [4, []]);
});

test("a row that commits late is counted in its gap", () => {
  const tally = new Tally();
  tally.add(rows([1, 2, 7]), 0);
  assert.deepEqual(gaps(tally), [[3, 6]]);
  assert.equal(tally.add(rows([4, 8]), 0), 2);
  assert.deepEqual(gaps(tally), [
    [3, 3],
    [5, 6],
  ]);
  assert.equal(tally.add(rows([3, 5, 6]), 0), 3);
  assert.deepEqual(gaps(tally), []);
  assert.equal(total(tally.counts), 8);
});

test("gaps end when no transaction can fill them", () => {
  const tally = new Tally();
  tally.add(rows([1, 3]), 0);
  tally.forget(GAP_LIVES_MS - 1, 0);
  assert.deepEqual(gaps(tally), [[2, 2]]);
  tally.forget(GAP_LIVES_MS, 0);
  assert.deepEqual(gaps(tally), []);
});

test("the first row may commit second", () => {
  const tally = new Tally();
  tally.add(rows([2]), 0);
  assert.equal(tally.add(rows([1, 3]), 0), 2);
  assert.deepEqual(gaps(tally), []);
  const late = new Tally();
  late.add(rows([1_000_000]), 0);
  assert.deepEqual(gaps(late), [[998_000, 999_999]], "not down to 1");
});

test("gaps are bounded, and the newest are kept", () => {
  const tally = new Tally();
  tally.add(rows(Array.from({ length: 200 }, (_, n) => (n + 1) * 3)), 0);
  assert.equal(tally.gaps.length, MAX_GAPS);
  assert.deepEqual(gaps(tally).at(-1), [598, 599]);
});

test("a recount knows the gaps of the newest rows", () => {
  const ids = [...Array.from({ length: 996 }, (_, n) => n + 2), 1000];
  const tally = Tally.recounted([["a", 900]], 1000, ids, [["a", 5, 3]], 0);
  assert.deepEqual(gaps(tally), [
    [1, 1],
    [998, 999],
  ]);
  assert.equal(tally.add(rows([999]), 0), 1);
  assert.equal(tally.counts.get("a"), 901);
  assert.deepEqual(object(tally.lately(60, 6)), { a: 4 });
});

test("the window slides", () => {
  const tally = new Tally();
  // Seconds 0, 0, 1, 2 and 65.
  tally.add(rows([3, 4, 11, 24, 651]), 0);
  assert.deepEqual(object(tally.lately(60, 59)), { a: 3, b: 2 });
  assert.deepEqual(object(tally.lately(60, 61)), { a: 1, b: 1 });
  assert.deepEqual(object(tally.lately(10, 200)), { a: 0, b: 0 });
  tally.forget(0, 61);
  assert.deepEqual(object(tally.lately(60, 61)), { a: 1, b: 1 });
  assert.deepEqual(tally.lately(600, 61), tally.lately(60, 61), "older seconds are gone");
});

test("shares add up or are nothing", () => {
  const of = (a, b) => object(shares(new Map(Object.entries({ a, b }))));
  assert.deepEqual(of(3, 1), { a: 0.75, b: 0.25 });
  assert.deepEqual(of(0, 0), { a: 0, b: 0 });
});

test("updates come when rows do but not too often, and at rest", () => {
  const told = new Told();
  assert.ok(told.updateIsDue(1, 0));
  assert.ok(!told.updateIsDue(2, 249), "new rows wait");
  assert.ok(told.updateIsDue(2, 250));
  assert.ok(!told.updateIsDue(2, 1249), "nothing new");
  assert.ok(told.updateIsDue(2, 1250), "at rest");
  assert.ok(told.splitIsDue(0));
  assert.ok(!told.splitIsDue(999));
  assert.ok(told.splitIsDue(1000));
});
