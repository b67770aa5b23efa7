import assert from "node:assert/strict";
import { test } from "node:test";
import { parseReading, type Reading } from "../src/model.js";
import { decimate, KEEP_MS, memoryScale, nearest, percentScale, Series, timeTicks, visible } from "../src/series.js";

const reading = (id: number, at: number): Reading => ({ ...parseReading({ id })!, at });
const ids = (readings: readonly Reading[]) => readings.map(({ id }) => id);

test("readings are kept in order and once, whenever they come", () => {
  const series = new Series();
  assert.equal(series.add([reading(5, 500)]), true);
  assert.equal(series.add([reading(3, 300), reading(4, 400), reading(5, 500)]), true);
  assert.equal(series.add([reading(5, 500), reading(3, 300)]), false);
  assert.deepEqual(ids(series.all), [3, 4, 5]);
});

test("a reading without a time is not drawn", () => {
  const series = new Series();
  assert.equal(series.add([reading(1, NaN)]), false);
  assert.equal(series.last, undefined);
});

test("what is too old or too much is dropped", () => {
  const series = new Series();
  series.add([reading(1, 0), reading(2, 10), reading(3, KEEP_MS + 5)]);
  assert.deepEqual(ids(series.all), [2, 3]);
  series.add(Array.from({ length: 9000 }, (_, i) => reading(10 + i, KEEP_MS + 10 + i / 10)));
  assert.equal(series.all.length, 4200);
  assert.equal(series.last?.id, 9009);
});

test("the right edge is now by the server's clock, or the newest reading when that is old", () => {
  const series = new Series();
  assert.equal(series.edge(60_000, 1_000_000), 1_000_000);
  series.addLive(reading(1, 1_005_000), 1_000_000);
  assert.equal(series.edge(60_000, 1_010_000), 1_015_000);
  assert.equal(series.edge(60_000, 9_000_000), 1_005_000);
  const history = new Series();
  history.add([reading(1, 2_000_000)]);
  assert.equal(history.edge(60_000, 1_000_000), 2_000_000);
});

test("a window has its readings and the one before", () => {
  const all = [reading(1, 10), reading(2, 20), reading(3, 30), reading(4, 40)];
  assert.deepEqual(ids(visible(all, 25, 35)), [2, 3]);
  assert.deepEqual(ids(visible(all, 0, 100)), [1, 2, 3, 4]);
  assert.deepEqual(ids(visible(all, 45, 50)), [4]);
  assert.deepEqual(ids(visible([], 0, 1)), []);
});

test("decimating keeps peaks, ends and order, and bounds the number", () => {
  const points = Array.from({ length: 10_000 }, (_, x) => ({ x, y: x === 5432 ? 99 : x % 7 }));
  const few = decimate(points, 100, 0, 10_000);
  assert.ok(few.length <= 400, String(few.length));
  assert.ok(few.some(({ y }) => y === 99));
  assert.deepEqual([few[0]!.x, few[few.length - 1]!.x], [0, 9999]);
  for (let i = 1; i < few.length; i++) assert.ok(few[i]!.x > few[i - 1]!.x);
  assert.deepEqual(decimate(points.slice(0, 50), 100, 0, 50), points.slice(0, 50));
});

test("a scale holds its values with room above", () => {
  assert.deepEqual([0, 7, 8, 19, 20, 38, 39, 100].map(percentScale), [8, 8, 20, 20, 40, 40, 100, 100]);
});

test("a scale of memory has round quarters", () => {
  assert.deepEqual([15_990, 7_900, 32_000, 64_200].map((mb) => memoryScale(mb) / 1024), [16, 8, 40, 80]);
  assert.deepEqual([512, 900, 0].map(memoryScale), [800, 1000, 1]);
});

test("ticks are round and far enough apart", () => {
  assert.deepEqual(timeTicks(1_000, 61_000, 500, 76), [10_000, 20_000, 30_000, 40_000, 50_000, 60_000]);
  assert.deepEqual(timeTicks(0, 900_000, 300, 76), [0, 300_000, 600_000, 900_000]);
});

test("the nearest reading is found from either side", () => {
  const all = [reading(1, 10), reading(2, 20), reading(3, 40)];
  assert.deepEqual([0, 14, 16, 29, 31, 99].map((at) => nearest(all, at)?.id), [1, 1, 2, 2, 3, 3]);
  assert.equal(nearest([], 1), undefined);
});
