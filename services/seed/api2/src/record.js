// The telemetry record: twelve fields, their bounds, and how a body becomes records.

import { parseHora } from "./hora.js";
import { Problem } from "./service/problem.js";

/** Most records that one request may carry. */
export const MAX_BATCH = 1000;

/** Most unknown fields that one answer names, and how much of each name. */
const MAX_WARNINGS = 32;
const MAX_NAME = 64;

/** Most of an INT UNSIGNED. */
const MAX_COUNT = 4_294_967_295;

const AMOUNTS = ["total_ram", "ram_libre", "uso_ram"];
const PERCENTAGES = ["porcentaje_ram", "porcentaje_cpu_uso", "porcentaje_cpu_libre"];
const COUNTS = [
  "procesos_corriendo",
  "total_procesos",
  "procesos_durmiendo",
  "procesos_zombie",
  "procesos_parados",
];

/** The twelve fields, in the table's order. */
export const FIELDS = [...AMOUNTS, ...PERCENTAGES, ...COUNTS, "hora"];

/** How each is read: the value as it is stored, or what is wrong with it. */
const CHECKS = new Map([
  ...AMOUNTS.map((field) => [field, (value) => number(value, Infinity, "of 0 or more")]),
  ...PERCENTAGES.map((field) => [field, (value) => number(value, 100, "from 0 to 100")]),
  ...COUNTS.map((field) => [field, count]),
  ["hora", hora],
]);

/**
 * Reads one record or an array of 1 to MAX_BATCH.
 *
 * @param {Buffer} body
 * @returns {{records: unknown[][], unknown: string[]}} the values of each record in the
 *   order of FIELDS; fields that are no part of a record are ignored but named, because
 *   real senders add fields and a typo should be seen
 * @throws {Problem} 400 when it is no JSON, 422 that names every bad field of every record
 */
export function parseBody(body) {
  const value = parseJson(body);
  const reader = new Reader();
  let records = [];
  if (Array.isArray(value) && (value.length === 0 || value.length > MAX_BATCH)) {
    reader.bad("", `the array holds ${value.length} records; expected 1 to ${MAX_BATCH}`);
  } else if (Array.isArray(value)) {
    records = value.map((item, index) =>
      kind(item) === "an object"
        ? reader.record(item, index)
        : reader.bad("", `is ${kind(item)}; expected a record (an object)`, index),
    );
  } else if (kind(value) === "an object") {
    records = [reader.record(value)];
  } else {
    reader.bad(
      "",
      `the body is ${kind(value)}; expected a record (an object) or an array of records`,
    );
  }
  if (reader.errors.length > 0) {
    throw new Problem(422, "the body is not a record, or not records", reader.errors);
  }
  return { records, unknown: [...reader.unknown].sort(byCodePoint) };
}

class Reader {
  errors = [];
  unknown = new Set();

  bad(field, message, index) {
    this.errors.push({ field, ...(index !== undefined && { index }), message });
  }

  /** Reads every field even after a bad one, so that all are named. */
  record(values, index) {
    const unknown = Object.keys(values).filter((name) => !CHECKS.has(name));
    for (const name of unknown.sort(byCodePoint)) {
      if (this.unknown.size === MAX_WARNINGS) break;
      this.unknown.add([...name].slice(0, MAX_NAME).join(""));
    }
    return FIELDS.map((field) => {
      if (!Object.hasOwn(values, field)) return this.bad(field, "is missing", index);
      const { value, wrong } = CHECKS.get(field)(values[field]);
      return wrong === undefined ? value : this.bad(field, wrong, index);
    });
  }
}

/** JSON is UTF-8 without a byte order mark (RFC 8259). */
function parseJson(body) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
    // Half a character in an escape is text that no database would take; few
    // bodies have an escape that could be one.
    return JSON.parse(text, /\\u[dD][89a-fA-F]/.test(text) ? wellFormed : undefined);
  } catch (error) {
    throw new Problem(400, `the body is not JSON: ${error.message}`);
  }
}

function wellFormed(name, value) {
  if (isBroken(name) || (typeof value === "string" && isBroken(value))) {
    throw new SyntaxError("lone surrogate in an escape");
  }
  return value;
}

function isBroken(text) {
  return /\p{Surrogate}/u.test(text);
}

function number(value, max, wanted) {
  if (typeof value !== "number") {
    return { wrong: `is ${described(value)}; expected a number ${wanted}` };
  }
  checkFinite(value);
  if (value >= 0 && value <= max) return { value };
  return { wrong: `is ${plain(value)}; expected a number ${wanted}` };
}

function count(value) {
  // 5.0 is an integer in JSON: some senders write every number that way.
  if (Number.isInteger(value) && value >= 0 && value <= MAX_COUNT) return { value };
  checkFinite(value);
  return { wrong: `is ${described(value)}; expected an integer from 0 to ${MAX_COUNT}` };
}

function hora(value) {
  const clock = typeof value === "string" ? parseHora(value) : undefined;
  if (clock !== undefined) return { value: clock };
  return {
    wrong: `is ${described(value)}; expected local time as YYYY-MM-DD HH:MM:SS, or RFC 3339`,
  };
}

/** JSON has numbers that no double holds; to all APIs they are no JSON. */
function checkFinite(value) {
  if (value === Infinity || value === -Infinity) {
    throw new Problem(400, "the body is not JSON: number out of range");
  }
}

/** A number without an exponent. */
function plain(value) {
  if (Number.isInteger(value)) return String(BigInt(value));
  return value.toLocaleString("en-US", { useGrouping: false, maximumSignificantDigits: 17 });
}

/** A bad value as a message shows it: numbers as they are, strings cut short. */
function described(value) {
  if (typeof value === "number") return String(value);
  if (typeof value === "string") {
    const all = [...value];
    const short = JSON.stringify(all.slice(0, 40).join(""));
    return `the string ${short}${all.length > 40 ? "…" : ""}`;
  }
  return kind(value);
}

function kind(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** The order of UTF-8, which all APIs use; that of UTF-16 differs. */
function byCodePoint(a, b) {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
