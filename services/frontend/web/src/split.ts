/** Shares of a whole. */

export interface Share {
  name: string;
  count: number;
  /** 0..1; null where there is no whole to have a share of. */
  share: number | null;
}

/** Shares by name, in the order of names, among all names that are known from anywhere. */
export function shares(counts: ReadonlyMap<string, number>, known: Iterable<string> = []): Share[] {
  const names = [...new Set([...counts.keys(), ...known])].sort();
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return names.map((name) => {
    const count = counts.get(name) ?? 0;
    return { name, count, share: sum > 0 ? count / sum : null };
  });
}

/** Names get colours in the order in which the page meets them, and keep them. */
export class Palette {
  readonly #size: number;
  readonly #slots = new Map<string, number>();

  constructor(size: number) {
    this.#size = size;
  }

  slot(name: string): number {
    let slot = this.#slots.get(name);
    if (slot === undefined) {
      slot = this.#slots.size % this.#size;
      this.#slots.set(name, slot);
    }
    return slot;
  }
}

/** Events a second over the last seconds, from a total that only grows. */
export class Rate {
  #marks: { at: number; total: number }[] = [];
  readonly #spanMs: number;

  constructor(spanMs: number) {
    this.#spanMs = spanMs;
  }

  /** Null until there is a second to measure over. */
  update(total: number, now: number): number | null {
    const last = this.#marks[this.#marks.length - 1];
    // A smaller total is another database: what was measured before says nothing.
    if (last && total < last.total) this.#marks = [];
    this.#marks.push({ at: now, total });
    while (this.#marks.length > 2 && now - this.#marks[1]!.at >= this.#spanMs) this.#marks.shift();
    const first = this.#marks[0]!;
    const ms = now - first.at;
    return ms < 900 ? null : Math.max(0, ((total - first.total) * 1000) / ms);
  }
}
