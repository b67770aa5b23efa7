// Reading records: newest first, page by page along the primary key.

import { Problem } from "./problem.js";

/** How long one page may take. */
const LIMIT_MS = 5000;

const DEFAULT_PAGE = 100;
const MAX_ID = 9_223_372_036_854_775_807n;

const SELECT =
  "SELECT id, total_ram, ram_libre, uso_ram, porcentaje_ram, porcentaje_cpu_uso, " +
  "porcentaje_cpu_libre, procesos_corriendo, total_procesos, procesos_durmiendo, " +
  "procesos_zombie, procesos_parados, DATE_FORMAT(hora, '%Y-%m-%d %H:%i:%s') AS hora, api, " +
  "DATE_FORMAT(created_at, '%Y-%m-%dT%H:%i:%s.%fZ') AS created_at " +
  "FROM records WHERE id < ? ORDER BY id DESC LIMIT ?";

/** A query's parameters; the last of a name counts. */
export function queryOf(request) {
  return new Map(new URLSearchParams(request.url.split("?")[1] ?? ""));
}

/** A whole number as text, or undefined. */
export function whole(text) {
  return /^\+?[0-9]{1,20}$/.test(text) ? BigInt(text.replace("+", "")) : undefined;
}

/** Reads `limit` (at most `max`) and `after`; 422 names each bad one. */
export function pageOf(query, max) {
  const errors = [];
  let limit = Math.min(max, DEFAULT_PAGE);
  if (query.has("limit")) {
    limit = Number(whole(query.get("limit")) ?? 0);
    if (limit < 1 || limit > max) {
      errors.push({ field: "limit", message: `expected a whole number from 1 to ${max}` });
    }
  }
  let after = null;
  if (query.has("after")) {
    after = whole(query.get("after"));
    if (after === undefined || after > MAX_ID) {
      errors.push({ field: "after", message: "expected the id of a record" });
    }
  }
  if (errors.length > 0) throw new Problem(422, "the query has bad parameters", errors);
  return { limit, after };
}

/** Reads one page; `next_after` is where the next one starts, null on the last one. */
export async function readPage(db, page) {
  const records = await db.query((connection) => newest(connection, page), LIMIT_MS);
  const more = records.length > page.limit;
  records.length = Math.min(records.length, page.limit);
  return { records, next_after: more ? records[records.length - 1].id : null };
}

/** The records of a page and one more, which tells whether there is another page. */
export async function newest(connection, { limit, after }) {
  const [rows] = await connection.query(SELECT, [after ?? MAX_ID, limit + 1]);
  return rows;
}
