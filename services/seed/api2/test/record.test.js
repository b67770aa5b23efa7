import assert from "node:assert/strict";
import { test } from "node:test";

import { parseHora } from "../src/hora.js";
import { FIELDS, MAX_BATCH, parseBody } from "../src/record.js";
import { Problem } from "../src/service/problem.js";

const good = (changed = {}) => ({
  total_ram: 8192,
  ram_libre: 4096.5,
  uso_ram: 4095.5,
  porcentaje_ram: 50,
  porcentaje_cpu_uso: 12.5,
  porcentaje_cpu_libre: 87.5,
  procesos_corriendo: 3,
  total_procesos: 120,
  procesos_durmiendo: 115,
  procesos_zombie: 1,
  procesos_parados: 1,
  hora: "2025-03-01 12:30:59",
  ...changed,
});

const parse = (value) => parseBody(Buffer.from(JSON.stringify(value)));

function problem(body, status) {
  let caught;
  try {
    parseBody(Buffer.from(body));
  } catch (error) {
    caught = error;
  }
  assert.ok(caught instanceof Problem, String(caught));
  assert.equal(caught.status, status);
  return caught;
}

const errors = (value) => problem(JSON.stringify(value), 422).errors;

test("a good record is taken whole", () => {
  assert.deepEqual(parse(good()), { records: [Object.values(good())], unknown: [] });
});

test("every missing field is named", () => {
  assert.deepEqual(
    errors({}),
    FIELDS.map((field) => ({ field, message: "is missing" })),
  );
});

const INTEGER = "expected an integer from 0 to 4294967295";
const CLOCK = "expected local time as YYYY-MM-DD HH:MM:SS, or RFC 3339";
for (const [field, value, message] of [
  ["total_ram", -0.1, "is -0.1; expected a number of 0 or more"],
  ["total_ram", "8192", 'is the string "8192"; expected a number of 0 or more'],
  ["ram_libre", null, "is null; expected a number of 0 or more"],
  ["porcentaje_ram", 100.01, "is 100.01; expected a number from 0 to 100"],
  ["porcentaje_ram", 1e21, `is 1${"0".repeat(21)}; expected a number from 0 to 100`],
  ["porcentaje_cpu_uso", -1, "is -1; expected a number from 0 to 100"],
  ["porcentaje_cpu_libre", true, "is a boolean; expected a number from 0 to 100"],
  ["procesos_corriendo", 1.5, `is 1.5; ${INTEGER}`],
  ["procesos_corriendo", -1, `is -1; ${INTEGER}`],
  ["total_procesos", 2 ** 32, `is 4294967296; ${INTEGER}`],
  ["total_procesos", 2e300, `is 2e+300; ${INTEGER}`],
  ["procesos_zombie", "1", `is the string "1"; ${INTEGER}`],
  ["procesos_parados", [1], `is an array; ${INTEGER}`],
  ["hora", "x".repeat(41), `is the string "${"x".repeat(40)}"…; ${CLOCK}`],
  ["hora", {}, `is an object; ${CLOCK}`],
]) {
  test(`${field} ${JSON.stringify(value)} is named alone`, () => {
    assert.deepEqual(errors(good({ [field]: value })), [{ field, message }]);
  });
}

for (const [field, value] of [
  ["porcentaje_ram", 0],
  ["porcentaje_ram", 100],
  ["procesos_zombie", 2 ** 32 - 1],
  ["total_ram", 1e300],
  ["hora", "2025-03-01T12:30:59-06:00"],
]) {
  test(`${field} ${value} is good`, () => {
    assert.equal(parse(good({ [field]: value })).records.length, 1);
  });
}

test("5.0 is an integer", () => {
  const body = JSON.stringify(good()).replace('"procesos_zombie":1', '"procesos_zombie":5.0');
  assert.equal(parseBody(Buffer.from(body)).records[0][9], 5);
});

test("unknown fields are named, not refused", () => {
  assert.deepEqual(parse(good({ zona: { a: 1 }, maquina: "vm-1" })).unknown, ["maquina", "zona"]);
  const body = JSON.stringify(good()).replace("{", '{"__proto__":1,"constructor":2,');
  assert.deepEqual(parseBody(Buffer.from(body)).unknown, ["__proto__", "constructor"]);
});

test("the names of unknown fields are bounded, and sorted as UTF-8 is", () => {
  const many = Array.from({ length: 40 }, (_, n) => [`${String(n).padStart(2, "0")}${"x".repeat(100)}`, n]);
  const { unknown } = parse(good(Object.fromEntries(many)));
  assert.equal(unknown.length, 32);
  assert.equal(unknown[31], `31${"x".repeat(62)}`);
  assert.deepEqual(parse(good({ "\u{1f600}": 1, "\uff5e": 2 })).unknown, ["\uff5e", "\u{1f600}"]);
});

test("errors of an array carry the index", () => {
  const found = errors([good(), good({ uso_ram: "x" }), 7, good({ hora: "" })]);
  assert.deepEqual(
    found.map(({ index, field }) => [index, field]),
    [
      [1, "uso_ram"],
      [2, ""],
      [3, "hora"],
    ],
  );
});

test("an array holds one to a thousand", () => {
  assert.equal(parse(Array(MAX_BATCH).fill(good())).records.length, MAX_BATCH);
  for (const bad of [[], Array(MAX_BATCH + 1).fill(good()), "text", 1, null]) {
    assert.deepEqual(
      errors(bad).map(({ field }) => field),
      [""],
    );
  }
});

for (const body of [
  "",
  "{",
  '{"a":}',
  "total_ram=1",
  '{"a":NaN}',
  '{"total_ram":1e400}',
  '{"procesos_zombie":-1e400}',
  Buffer.from('{"a":"\xff"}', "latin1"),
  '{"a":"\\ud800"}',
  '{"\\udc00":1}',
  "\ufeff{}",
  Buffer.from('{"a":1}', "utf16le"),
]) {
  test(`${JSON.stringify(String(body))} is not JSON`, () => problem(body, 400));
}

test("a whole character in an escape is JSON", () => {
  assert.deepEqual(errors("\ud83d\ude00").map(({ field }) => field), [""]);
  problem('{"a":"\\ud83d\\ude00"}', 422);
});

for (const [text, clock] of [
  ["2025-03-01 12:30:59", "2025-03-01 12:30:59"],
  ["2024-02-29 00:00:00", "2024-02-29 00:00:00"],
  ["2025-03-01T12:30:59Z", "2025-03-01 12:30:59"],
  ["2025-03-01t12:30:59z", "2025-03-01 12:30:59"],
  ["2025-12-31T23:59:59.999999-06:00", "2025-12-31 23:59:59"],
  ["2025-03-01 12:30:59+05:30", "2025-03-01 12:30:59"],
  ["2016-12-31T23:59:60Z", "2016-12-31 23:59:59"],
]) {
  test(`the wall clock of ${text} is kept`, () => assert.equal(parseHora(text), clock));
}

for (const text of [
  "",
  "2025-03-01",
  "2025-02-29 00:00:00",
  "2025-13-01 00:00:00",
  "2025-03-01 24:00:00",
  "2025-03-01 12:60:00",
  "2025-03-01 12:30:60",
  "2025/03/01 12:30:59",
  "0999-03-01 12:30:59",
  "2025-03-01T12:30:59",
  "2025-03-01T12:30:59.Z",
  "2025-03-01T12:30:59+24:00",
  "2025-03-01T12:30:59 Z",
  "2025-03-01 12:30:5\uff19",
  " 2025-03-01 12:30:59",
  "2025-03-01 12:30:59 ",
  "2025-03-01 12:30:59\n",
  "+025-03-01 12:30:59",
]) {
  test(`${JSON.stringify(text)} is no clock`, () => assert.equal(parseHora(text), undefined));
}
