import assert from "node:assert/strict";
import { test } from "node:test";
import { parseConfig } from "../src/config.js";
import { parseHistory, parseMetrics, parseReading, parseSplit, parseTime } from "../src/model.js";

const record = {
  id: 7,
  api: "api2",
  created_at: "2026-03-01T12:30:59.250000Z",
  total_ram: 8000,
  ram_libre: 2000,
  uso_ram: 6000,
  porcentaje_ram: 75,
  porcentaje_cpu_uso: 12.5,
  porcentaje_cpu_libre: 87.5,
  procesos_corriendo: 1,
  total_procesos: 10,
  procesos_durmiendo: 6,
  procesos_zombie: 2,
  procesos_parados: 1,
  hora: "2026-03-01 06:30:59",
};

test("a record of the contract is read field by field", () => {
  assert.deepEqual(parseReading(record), {
    id: 7,
    api: "api2",
    at: Date.UTC(2026, 2, 1, 12, 30, 59, 250),
    hora: "2026-03-01 06:30:59",
    totalRam: 8000,
    freeRam: 2000,
    usedRam: 6000,
    ramPercent: 75,
    cpuPercent: 12.5,
    cpuFree: 87.5,
    running: 1,
    sleeping: 6,
    zombie: 2,
    stopped: 1,
    processes: 10,
  });
});

test("times without a zone are UTC", () => {
  const utc = Date.UTC(2026, 0, 2, 3, 4, 5);
  assert.equal(parseTime("2026-01-02 03:04:05"), utc);
  assert.equal(parseTime("2026-01-02T03:04:05Z"), utc);
  assert.equal(parseTime("2026-01-02T05:04:05+02:00"), utc);
  assert.ok(Number.isNaN(parseTime(null)));
  assert.ok(Number.isNaN(parseTime("soon")));
});

test("an empty table has no record, and its totals are kept", () => {
  assert.deepEqual(parseMetrics({ record: null, counts: {}, total: 0 }), {
    reading: null,
    counts: new Map(),
    total: 0,
  });
});

test("what is no payload is ignored", () => {
  for (const odd of [null, undefined, 3, "x", []]) {
    assert.equal(parseMetrics(odd), null);
    assert.equal(parseSplit(odd), null);
    assert.equal(parseReading(odd), null);
  }
  assert.equal(parseReading({ ...record, id: "7" }), null);
  assert.equal(parseReading({ ...record, uso_ram: "6000" })?.usedRam, 0);
});

test("names come in order, whatever the payload's", () => {
  assert.deepEqual([...parseSplit({ window_s: 10, by_api: { b: 2, a: 1 } })!.byApi], [["a", 1], ["b", 2]]);
});

test("history is a list, and an error is none", () => {
  assert.equal(parseHistory([record, record])?.length, 2);
  assert.equal(parseHistory([record, { id: null }])?.length, 1);
  assert.equal(parseHistory({ error: { message: "away" } }), null);
});

test("configuration: missing means empty, a closing slash goes", () => {
  assert.deepEqual(parseConfig({ api3_url: "http://a:1/", k_service: "frontend" }), {
    api3Url: "http://a:1",
    ingressUrl: "",
    service: "frontend",
    revision: "",
  });
  assert.deepEqual(parseConfig(null), { api3Url: "", ingressUrl: "", service: "", revision: "" });
});
