// Counting rows by id as they appear, without reading any row twice.
//
// Ids are given before rows are committed, so a row can appear below one that was
// seen already. Such ids are remembered as gaps and asked for again until no
// transaction can still fill them. What this misses (rows deleted, more gaps than are
// kept) the next recount puts right.

/** Seconds that the live split looks back. */
export const WINDOW_S = 60;

/** The write side gives a request up after 10 s; its transaction is gone by then. */
export const GAP_LIVES_MS = 15_000;

/** Most gaps that are asked for at a time. */
export const MAX_GAPS = 64;

/** How far below a row ids are taken for gaps when nothing was seen before it. */
const GAP_DEPTH = 2000;

/** The lowest id that counts as a gap below `id`, when what lies below was not watched. */
export function gapsFrom(id) {
  return Math.max(id - GAP_DEPTH, 1);
}

/** How many rows there are of each API, and how many came lately. */
export class Tally {
  /** Rows by API. */
  counts = new Map();
  /** The highest id seen; 0 when there was none. */
  lastId = 0;
  /** Ids from `first` to `last` that were not there when they were passed. */
  gaps = [];
  /** Rows by second of the database's clock, then by API. */
  #lately = new Map();

  /**
   * A tally that starts from a recount: `counts` of all rows up to `lastId`, the ids
   * present from `gapsFrom` that on (ascending), and `[api, second, n]` of the last
   * seconds. Times are milliseconds of a clock that only goes forward.
   */
  static recounted(counts, lastId, newestIds, seconds, nowMs) {
    const tally = new Tally();
    tally.counts = new Map(counts);
    tally.lastId = lastId;
    for (const [api, second, n] of seconds) add(tally.#of(second), api, n);
    let next = gapsFrom(lastId);
    for (const id of newestIds) {
      tally.#gap(next, id - 1, nowMs);
      next = id + 1;
    }
    return tally;
  }

  /**
   * Counts rows `{id, api, second}` that were found above `lastId` or in a gap, in
   * ascending order of their ids. Returns how many were new.
   */
  add(rows, nowMs) {
    let fresh = 0;
    for (const { id, api, second } of rows) {
      if (id > this.lastId) {
        // Of two first rows the second may be seen first.
        this.#gap(this.lastId === 0 ? gapsFrom(id) : this.lastId + 1, id - 1, nowMs);
        this.lastId = id;
      } else if (!this.#fill(id)) {
        continue;
      }
      fresh += 1;
      add(this.counts, api, 1);
      add(this.#of(second), api, 1);
    }
    return fresh;
  }

  /** Forgets gaps that nobody can fill any more, and seconds that are out of the
   * window at `second`. */
  forget(nowMs, second) {
    this.gaps = this.gaps.filter((gap) => gap.untilMs > nowMs);
    for (const old of this.#lately.keys()) {
      if (old <= second - WINDOW_S) this.#lately.delete(old);
    }
  }

  /** Rows of each API in the `windowS` seconds up to `second`; every API that ever
   * wrote is named. */
  lately(windowS, second) {
    const sum = new Map([...this.counts.keys()].map((api) => [api, 0]));
    for (const [when, counts] of this.#lately) {
      if (when <= second - windowS) continue;
      for (const [api, n] of counts) add(sum, api, n);
    }
    return sum;
  }

  #of(second) {
    if (!this.#lately.has(second)) this.#lately.set(second, new Map());
    return this.#lately.get(second);
  }

  #gap(first, last, nowMs) {
    if (first > last) return;
    if (this.gaps.length === MAX_GAPS) this.gaps.shift();
    this.gaps.push({ first, last, untilMs: nowMs + GAP_LIVES_MS });
  }

  /** Takes `id` out of its gap; false when it was in none. */
  #fill(id) {
    const at = this.gaps.findIndex(({ first, last }) => first <= id && id <= last);
    if (at < 0) return false;
    const gap = this.gaps[at];
    const parts = [
      { ...gap, last: id - 1 },
      { ...gap, first: id + 1 },
    ];
    this.gaps.splice(at, 1, ...parts.filter(({ first, last }) => first <= last));
    return true;
  }
}

/** The sum of all APIs. */
export function total(counts) {
  let sum = 0;
  for (const n of counts.values()) sum += n;
  return sum;
}

/** The part of each API, 0 to 1; all 0 when nothing came. */
export function shares(counts) {
  const all = Math.max(total(counts), 1);
  return new Map([...counts].map(([api, n]) => [api, n / all]));
}

/** A map as a JSON object, its names in order. */
export function object(counts) {
  return Object.fromEntries([...counts].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function add(counts, api, n) {
  counts.set(api, (counts.get(api) ?? 0) + n);
}
