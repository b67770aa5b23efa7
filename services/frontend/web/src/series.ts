/** The readings that are kept, and the arithmetic of drawing them. */

import type { Reading } from "./model.js";

export interface Point {
  x: number;
  y: number;
}

/** The longest window that can be shown, and so what is kept. */
export const KEEP_MS = 15 * 60 * 1000;
/** Four updates a second for the longest window, and the history asked for at the start. */
const KEEP = 4200;

/** Readings in the order of their ids, without repeats, bounded. */
export class Series {
  #readings: Reading[] = [];
  /** How far the server's clock is ahead of ours, as far as live readings show. */
  #ahead = 0;

  get all(): readonly Reading[] {
    return this.#readings;
  }

  get last(): Reading | undefined {
    return this.#readings[this.#readings.length - 1];
  }

  /** Adds readings in any order; says whether one of them is new. */
  add(readings: readonly Reading[]): boolean {
    let fresh = false;
    for (const reading of [...readings].sort((a, b) => a.id - b.id)) {
      if (Number.isNaN(reading.at)) continue;
      const last = this.last;
      if (!last || reading.id > last.id) {
        this.#readings.push(reading);
        fresh = true;
      } else if (!this.#readings.some((known) => known.id === reading.id)) {
        this.#readings.push(reading);
        this.#readings.sort((a, b) => a.id - b.id);
        fresh = true;
      }
    }
    const newest = this.last?.at ?? 0;
    const first = this.#readings.findIndex((reading) => newest - reading.at <= KEEP_MS);
    const surplus = Math.max(first, this.#readings.length - KEEP, 0);
    if (surplus > 0) this.#readings.splice(0, surplus);
    return fresh;
  }

  /** Adds a reading that was just made, which tells the server's time as well. */
  addLive(reading: Reading, now: number): boolean {
    const fresh = this.add([reading]);
    if (fresh && this.last === reading) this.#ahead = reading.at - now;
    return fresh;
  }

  clear(): void {
    this.#readings = [];
  }

  /**
   * The right edge of a window: the present, by the server's clock, while there is something to see in
   * it; else the newest reading, so that yesterday's data are shown and not an empty frame.
   */
  edge(windowMs: number, now: number): number {
    const newest = this.last?.at;
    const present = now + this.#ahead;
    if (newest === undefined) return present;
    return newest > present || newest < present - windowMs ? newest : present;
  }
}

/** Where a reading counts for a chart's window, and one before it so that the line enters from the left. */
export function visible(readings: readonly Reading[], from: number, to: number): readonly Reading[] {
  let first = readings.findIndex((reading) => reading.at >= from);
  if (first < 0) return readings.slice(-1).filter((reading) => reading.at <= to);
  first = Math.max(0, first - 1);
  return readings.slice(first).filter((reading) => reading.at <= to);
}

/** At most four points a column of pixels: its first, lowest, highest and last. Peaks survive. */
export function decimate(points: readonly Point[], columns: number, from: number, to: number): Point[] {
  if (points.length <= columns * 2 || to <= from) return [...points];
  const result: Point[] = [];
  let column: Point[] = [];
  let current = -Infinity;
  const flush = () => {
    if (column.length === 0) return;
    let low = 0;
    let high = 0;
    column.forEach((point, i) => {
      if (point.y < column[low]!.y) low = i;
      if (point.y > column[high]!.y) high = i;
    });
    const keep = [...new Set([0, low, high, column.length - 1])].sort((a, b) => a - b);
    for (const i of keep) result.push(column[i]!);
    column = [];
  };
  for (const point of points) {
    const at = Math.floor(((point.x - from) / (to - from)) * columns);
    if (at !== current) {
      flush();
      current = at;
    }
    column.push(point);
  }
  flush();
  return result;
}

/** The least of a few comfortable scales that holds a percentage; its quarters are whole. */
export function percentScale(highest: number): number {
  return [8, 20, 40, 100].find((scale) => highest <= scale * 0.95) ?? 100;
}

/** The least scale that holds so many megabytes and whose quarters are round in the unit shown. */
export function memoryScale(megabytes: number): number {
  const unit = megabytes > 1024 ? 1024 : 1;
  const quarter = Math.max(megabytes / unit / 4, 0.25);
  const power = 10 ** Math.floor(Math.log10(quarter));
  const round = [1, 2, 2.5, 3, 4, 5, 7.5, 10].find((step) => quarter <= step * power + 1e-9) ?? 10;
  return round * power * 4 * unit;
}

/** Round times for the axis: from..to in steps that leave `gap` pixels between labels. */
export function timeTicks(from: number, to: number, width: number, gap: number): number[] {
  const steps = [5, 10, 15, 30, 60, 120, 180, 300, 600, 900].map((s) => s * 1000);
  const fits = (step: number) => ((step / (to - from)) * width >= gap);
  const step = steps.find(fits) ?? steps[steps.length - 1]!;
  const ticks: number[] = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) ticks.push(tick);
  return ticks;
}

/** The reading nearest to a time, by bisection. */
export function nearest(readings: readonly Reading[], at: number): Reading | undefined {
  let low = 0;
  let high = readings.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (readings[middle]!.at < at) low = middle + 1;
    else high = middle;
  }
  const after = readings[low];
  const before = readings[low - 1];
  if (!after || !before) return after ?? before;
  return at - before.at <= after.at - at ? before : after;
}
