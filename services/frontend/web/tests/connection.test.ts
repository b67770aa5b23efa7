import assert from "node:assert/strict";
import { test } from "node:test";
import { next, secondsToRetry, start, type Connection, type Happening } from "../src/connection.js";

const away = (now: number): Happening => ({ kind: "database-away", reason: "no", retryInMs: 1500, now });
const after = (...all: Happening[]): Connection => all.reduce(next, start);

test("it connects, loses the connection, and comes back", () => {
  assert.equal(start.state, "connecting");
  assert.equal(after({ kind: "connected" }).state, "connected");
  const lost = after({ kind: "connected" }, { kind: "lost", reason: "transport close" });
  assert.deepEqual([lost.state, lost.reason], ["reconnecting", "transport close"]);
  const failed = next(next(lost, { kind: "attempt-failed", reason: "x" }), { kind: "attempt-failed", reason: "y" });
  assert.deepEqual([failed.state, failed.attempts, failed.reason], ["reconnecting", 2, "y"]);
  assert.deepEqual(next(failed, { kind: "connected" }), { ...start, state: "connected" });
});

test("whoever never had a connection is connecting, not reconnecting", () => {
  const state = after({ kind: "attempt-failed", reason: "refused" });
  assert.deepEqual([state.state, state.attempts], ["connecting", 1]);
});

test("the database is away until data come, and counts its retries", () => {
  const first = after({ kind: "connected" }, away(1000));
  assert.deepEqual([first.state, first.attempts, first.retryAt], ["database-away", 1, 2500]);
  assert.equal(next(first, away(2500)).attempts, 2);
  assert.equal(next(first, { kind: "data" }).state, "connected");
});

test("data on a good connection change nothing", () => {
  const good = after({ kind: "connected" });
  assert.equal(next(good, { kind: "data" }), good);
});

test("the countdown ends at 0", () => {
  const state = after(away(1000));
  assert.equal(secondsToRetry(state, 1000), 2);
  assert.equal(secondsToRetry(state, 1600), 1);
  assert.equal(secondsToRetry(state, 9000), 0);
  assert.equal(secondsToRetry(start, 9000), 0);
});
