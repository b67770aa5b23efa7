// Asking the database what is new, for all who want to know at once.

import { DbLate, sorted, within } from "./service/db.js";
import { log } from "./service/log.js";
import { newest } from "./service/read.js";
import { gapsFrom, object, shares, Tally, total, WINDOW_S } from "./tally.js";

/** How long one look may take; a page learns of an outage after this. */
const LOOK_WITHIN_MS = 800;

/** How long a recount may take: the whole index is read. */
const RECOUNT_WITHIN_MS = 120_000;

/** A recount puts right what counting by id can't see. It comes this often, or seldom
 * enough to use two percent of the time. */
const RECOUNT_EVERY_MS = 30_000;
const RECOUNT_SHARE = 50;

/** How often the highest id is asked for, which tells that the table was emptied. */
const CHECK_EVERY_MS = 1000;

/** Most rows of one look; who is further behind counts anew. */
const MAX_ROWS = 20_000;

/** How long counting an own window may take. */
const SPLIT_WITHIN_MS = 10_000;

const NEWEST_PAGE = { limit: 1, after: null };

/** The split of the last `windowS` seconds. */
function split(windowS, byApi) {
  return { window_s: windowS, by_api: object(byApi), share: object(shares(byApi)) };
}

/** The one who asks. */
export class Feed {
  #db;
  #tally;
  #newest = null;
  /** The database's clock minus ours, seconds. */
  #ahead = 0;
  #version = 0;
  /** The last look: when it ended, and what became of it. */
  #lookedMs = -Infinity;
  #look = Promise.resolve();
  #looking = false;
  #checkedMs = -Infinity;
  #recountDueMs = Infinity;
  /** A recount in the background, and its result. */
  #recounting = false;
  #recounted;

  constructor(db) {
    this.#db = db;
  }

  /**
   * What is known, at most `maxAgeMs` old: asks the database when it is older. Those
   * who come meanwhile wait and share the answer, a failure too.
   *
   * @throws DbError
   */
  async snapshot(maxAgeMs) {
    if (!this.#looking && performance.now() - this.#lookedMs >= maxAgeMs) {
      this.#looking = true;
      this.#look = this.#lookNow().finally(() => {
        this.#looking = false;
        this.#lookedMs = performance.now();
      });
    }
    await this.#look;
    const tally = this.#tally;
    const second = unixNow() + this.#ahead;
    return {
      /** The payload of `metrics-update`. */
      update: { record: this.#newest, counts: object(tally.counts), total: total(tally.counts) },
      /** Grows whenever any of that changed. */
      version: this.#version,
      /** The split of at most the last WINDOW_S seconds. */
      split: (windowS) => split(windowS, tally.lately(windowS, second)),
    };
  }

  /** The snapshot and the split of any window, from memory when that reaches so far. */
  async splitOf(windowS) {
    const snapshot = await this.snapshot(100);
    if (windowS <= WINDOW_S) return { snapshot, split: snapshot.split(windowS) };
    const [rows] = await this.#db.query(
      (connection) =>
        connection.query(
          "SELECT api, COUNT(*) AS n FROM records " +
            "WHERE created_at >= UTC_TIMESTAMP(6) - INTERVAL ? SECOND GROUP BY api",
          [windowS],
        ),
      SPLIT_WITHIN_MS,
    );
    const byApi = new Map(Object.keys(snapshot.update.counts).map((api) => [api, 0]));
    for (const { api, n } of rows) byApi.set(api, n);
    return { snapshot, split: split(windowS, byApi) };
  }

  async #lookNow() {
    try {
      if (this.#tally === undefined) this.#use(await this.#recount());
      this.#takeRecount();
      await this.#lookAt();
    } catch (error) {
      const known = sorted(error);
      if (!known.passing) log.error("a statement failed", { error: error.cause ?? error });
      throw known;
    }
  }

  /** One look at the database. */
  async #lookAt() {
    const now = performance.now();
    const check = now >= this.#checkedMs + CHECK_EVERY_MS;
    const work = (connection) => look(connection, this.#tally, this.#newest?.id ?? 0, check);
    const seen = await within(LOOK_WITHIN_MS, this.#db.query(work, LOOK_WITHIN_MS));
    if (check) this.#checkedMs = now;
    if (seen.emptied || seen.rows.length === MAX_ROWS) {
      this.#use(await this.#recount());
      return;
    }
    if (this.#tally.add(seen.rows, now) > 0) this.#version += 1;
    this.#tally.forget(now, unixNow() + this.#ahead);
    if (seen.newest !== undefined) this.#newest = seen.newest;
    if (!this.#recounting && now >= this.#recountDueMs) this.#recountBehind();
  }

  /** Recounts in the background: all rows are read, and pages are told meanwhile. */
  async #recountBehind() {
    this.#recounting = true;
    try {
      this.#recounted = await this.#recount();
    } catch (error) {
      log.debug("the recount failed", { error: error.message });
      this.#recountDueMs = performance.now() + RECOUNT_EVERY_MS;
    } finally {
      this.#recounting = false;
    }
  }

  /** Takes over the result of a recount in the background. Rows that came while it ran
   * lie above its last id and are found by the next look. */
  #takeRecount() {
    if (this.#recounted === undefined) return;
    this.#use(this.#recounted);
    this.#recounted = undefined;
  }

  #use({ tally, record, second, tookMs }) {
    const pause = Math.max(RECOUNT_EVERY_MS, tookMs * RECOUNT_SHARE);
    this.#recountDueMs = performance.now() + pause;
    this.#ahead = second - unixNow();
    this.#tally = tally;
    this.#newest = record;
    this.#version += 1;
  }

  /** All rows, counted at one moment. */
  async #recount() {
    let started = false;
    const counting = this.#db.query((connection) => {
      started = true;
      return countAll(connection);
    }, RECOUNT_WITHIN_MS);
    // The wait for a connection is short, as pages wait for the answer.
    await within(LOOK_WITHIN_MS, counting).catch((error) => {
      if (!(error instanceof DbLate && started)) throw error;
    });
    return counting;
  }
}

function unixNow() {
  return Math.floor(Date.now() / 1000);
}

async function look(connection, tally, newestId, check) {
  const { lastId, gaps } = tally;
  const [rows] = await connection.query(
    "SELECT id, api, COALESCE(CAST(FLOOR(UNIX_TIMESTAMP(created_at)) AS SIGNED), 0) AS second " +
      `FROM records WHERE id > ?${" OR id BETWEEN ? AND ?".repeat(gaps.length)} ` +
      "ORDER BY id LIMIT ?",
    [lastId, ...gaps.flatMap(({ first, last }) => [first, last]), MAX_ROWS],
  );
  const highest = Math.max(lastId, rows.at(-1)?.id ?? 0);
  const record = newestId < highest ? (await newest(connection, NEWEST_PAGE))[0] : undefined;
  let emptied = false;
  if (check) {
    const [[{ last }]] = await connection.query("SELECT MAX(id) AS last FROM records");
    emptied = (last ?? 0) < lastId;
  }
  return { rows, newest: record, emptied };
}

async function countAll(connection) {
  const started = performance.now();
  // The statements must see the same rows.
  await connection.query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
  await connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT");
  const [counts] = await connection.query("SELECT api, COUNT(*) AS n FROM records GROUP BY api");
  const [[{ last, second }]] = await connection.query(
    "SELECT COALESCE(MAX(id), 0) AS last, CAST(UNIX_TIMESTAMP() AS SIGNED) AS second FROM records",
  );
  const [ids] = await connection.query("SELECT id FROM records WHERE id >= ? ORDER BY id", [
    gapsFrom(last),
  ]);
  const [seconds] = await connection.query(
    "SELECT api, COALESCE(CAST(FLOOR(UNIX_TIMESTAMP(created_at)) AS SIGNED), 0) AS s, " +
      "COUNT(*) AS n FROM records " +
      "WHERE created_at >= UTC_TIMESTAMP(6) - INTERVAL ? SECOND GROUP BY api, s",
    [WINDOW_S],
  );
  const [record = null] = await newest(connection, NEWEST_PAGE);
  await connection.commit();
  return {
    tally: Tally.recounted(
      counts.map(({ api, n }) => [api, n]),
      last,
      ids.map(({ id }) => id),
      seconds.map(({ api, s, n }) => [api, s, n]),
      performance.now(),
    ),
    record,
    second,
    tookMs: performance.now() - started,
  };
}
