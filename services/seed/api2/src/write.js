// Writing records: all of a request or nothing, and with an `Idempotency-Key` once,
// however often and through whichever API it comes.
//
// Rows and key share one transaction. The key goes in first: its primary key makes a
// concurrent duplicate wait inside the database until the first one has committed
// (then it reads the first one's answer) or rolled back (then it takes over), also
// across processes and after a crash of either.

import { FIELDS } from "./record.js";
import { DbBusy, DbContended, DbLate, Fault, fault, Refusal, sorted, within } from "./service/db.js";
import { log } from "./service/log.js";

/** How long all attempts of one write may take together. A proxy's usual patience is
 * 60 s; a client is better served with an early 503. */
const LIMIT_MS = 10_000;

/** Attempts when the database rolls back because of locks. */
const ATTEMPTS = 6;

/** Answers to keys are kept this long, and looked through this often. */
const KEEP_KEYS_HOURS = 24;
const PRUNE_EVERY_MS = 600_000;

/** The key was used for another body. */
export class KeyReused extends Refusal {
  constructor() {
    super("this Idempotency-Key was used with another body; a new request needs a new key");
  }
}

/** Reads the header's value: 1 to 64 printable ASCII characters, or nothing. */
export function parseKey(value) {
  // Blanks around it are no part of a header's value, and the column would not tell
  // them apart.
  const key = value.trim();
  return /^[\x20-\x7e]{1,64}$/.test(key) && /^[\x20-\x7e]*$/.test(value) ? key : undefined;
}

/** Lets requests with the same key take turns, so that fifty duplicates hold one
 * connection to the database and not fifty. */
export class KeyLocks {
  #last = new Map();

  get size() {
    return this.#last.size;
  }

  /**
   * Waits until nobody else in this process works on `key`, then works.
   *
   * @throws {DbLate} when the wait took longer than `limitMs`
   */
  async turn(key, limitMs, work) {
    const before = this.#last.get(key);
    let done;
    const mine = new Promise((resolve) => (done = resolve));
    // Who comes next waits for all before, also when this one gives its wait up.
    const last = Promise.all([before, mine]);
    this.#last.set(key, last);
    try {
      if (before !== undefined) await within(limitMs, before);
      return await work();
    } finally {
      done();
      if (this.#last.get(key) === last) {
        if (before === undefined) this.#last.delete(key);
        else last.then(() => this.#last.get(key) === last && this.#last.delete(key));
      }
    }
  }
}

/**
 * Commits the records, stamped with `api`.
 *
 * @param {{key: string, bodySha256: string} | undefined} keyed the request's key with
 *   the SHA-256 of the body as it came, in hexadecimal
 * @returns {Promise<{ids: number[], api: string, replayed: boolean}>} ids in the request's
 *   order, and the API that took them: with a repeated key those of the first request
 * @throws DbError or KeyReused. After DbAway or DbLate it is unknown whether the rows
 *   were committed; with a key, the same request sent again finds out and leaves
 *   exactly one row for each record.
 */
export async function insert(db, locks, api, records, keyed) {
  const deadline = Date.now() + LIMIT_MS;
  const work = () => attempts(db, api, records, keyed, deadline);
  return keyed === undefined ? work() : locks.turn(keyed.key, LIMIT_MS, work);
}

async function attempts(db, api, records, keyed, deadline) {
  let rolledBack;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    rolledBack = undefined;
    try {
      const receipt = await db.run(
        (connection) => once(connection, api, records, keyed),
        deadline - Date.now(),
      );
      if (receipt !== undefined) return receipt;
    } catch (error) {
      if (fault(error) !== Fault.ROLLED_BACK) throw sorted(error);
      rolledBack = error;
    }
    if (attempt === ATTEMPTS || Date.now() >= deadline) break;
    log.debug("the database rolled back, trying again", { attempt });
    // Doubles with each attempt, up to half of it by chance: two that met must not
    // meet again.
    const base = 4 << attempt;
    await new Promise((resolve) => setTimeout(resolve, base / 2 + (Math.random() * base) / 2));
  }
  throw rolledBack === undefined ? new DbBusy() : new DbContended(rolledBack);
}

/** One attempt; undefined when the key was taken a moment ago and is free now. */
async function once(connection, api, records, keyed) {
  if (keyed === undefined) {
    // One statement is its own transaction.
    return { ids: await insertRows(connection, api, records), api, replayed: false };
  }
  await connection.beginTransaction();
  try {
    try {
      await connection.execute(
        "INSERT INTO idempotency (`key`, body_sha256, api, ids, created_at) " +
          "VALUES (?, ?, ?, '[]', UTC_TIMESTAMP(6))",
        [keyed.key, keyed.bodySha256, api],
      );
    } catch (error) {
      if (fault(error) !== Fault.DUPLICATE) throw error;
      await connection.rollback();
      return await firstAnswer(connection, keyed);
    }
    const ids = await insertRows(connection, api, records);
    await connection.execute("UPDATE idempotency SET ids = ? WHERE `key` = ?", [
      JSON.stringify(ids),
      keyed.key,
    ]);
    await connection.commit();
    return { ids, api, replayed: false };
  } catch (error) {
    // A lock wait that timed out rolls back its statement only.
    if ([Fault.ROLLED_BACK, Fault.REFUSED].includes(fault(error))) await connection.rollback();
    throw error;
  }
}

async function firstAnswer(connection, keyed) {
  const [[first]] = await connection.execute(
    "SELECT api, body_sha256, CAST(ids AS CHAR) AS ids FROM idempotency WHERE `key` = ?",
    [keyed.key],
  );
  if (first === undefined) return undefined;
  if (first.body_sha256 !== keyed.bodySha256) throw new KeyReused();
  return { ids: JSON.parse(first.ids), api: first.api, replayed: true };
}

const COLUMNS = `INSERT INTO records (${FIELDS.join(", ")}, api, created_at) VALUES `;
const ROW = `(${"?, ".repeat(FIELDS.length + 1)}UTC_TIMESTAMP(6))`;
const INSERT_ONE = COLUMNS + ROW;

/**
 * Inserts all in one statement. InnoDB gives the rows of an INSERT whose number of
 * rows is known beforehand ids in one run, in every `innodb_autoinc_lock_mode`,
 * `auto_increment_increment` apart (which group replication and Galera set to the
 * number of servers).
 */
async function insertRows(connection, api, records) {
  if (records.length === 1) {
    // Kept prepared on the connection: the same text each time.
    const [{ insertId }] = await connection.execute(INSERT_ONE, [...records[0], api]);
    return [insertId];
  }
  const [[{ step }]] = await connection.query(
    "SELECT CAST(@@SESSION.auto_increment_increment AS UNSIGNED) AS step",
  );
  const [{ insertId }] = await connection.query(
    COLUMNS + records.map(() => ROW).join(", "),
    records.flatMap((record) => [...record, api]),
  );
  return records.map((_, n) => insertId + n * step);
}

/**
 * Removes answers older than KEEP_KEYS_HOURS, a thousand at a time so that no lock is
 * held for long; says how many. What was removed before an error stays removed.
 */
export async function prune(db) {
  let removed = 0;
  for (;;) {
    const [{ affectedRows }] = await db.query(
      (connection) =>
        connection.query(
          "DELETE FROM idempotency WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL ? HOUR " +
            "ORDER BY created_at LIMIT 1000",
          [KEEP_KEYS_HOURS],
        ),
      LIMIT_MS,
    );
    removed += affectedRows;
    if (affectedRows < 1000) return removed;
  }
}

/** Removes old answers now and then, for as long as the process lives. */
export function pruneForever(db) {
  const look = async () => {
    try {
      const removed = await prune(db);
      if (removed > 0) log.info("old idempotency keys removed", { removed });
    } catch (error) {
      log.debug("old idempotency keys stay for now", { error: error.message });
    }
  };
  setInterval(look, PRUNE_EVERY_MS).unref();
}
