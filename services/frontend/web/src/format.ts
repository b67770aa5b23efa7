/** Numbers as people of either language read them. */

import type { Language } from "./i18n.js";

export class Format {
  readonly #one: Intl.NumberFormat;
  readonly #two: Intl.NumberFormat;
  readonly #whole: Intl.NumberFormat;
  readonly #short: Intl.NumberFormat;

  constructor(language: Language) {
    const digits = (n: number) =>
      new Intl.NumberFormat(language, { minimumFractionDigits: n, maximumFractionDigits: n });
    this.#one = digits(1);
    this.#two = digits(2);
    this.#whole = digits(0);
    this.#short = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
  }

  /** 12.3 % */
  percent(value: number): string {
    return `${this.#one.format(value)}\u00a0%`;
  }

  /** Megabytes, as gigabytes from 1,024 on. */
  megabytes(value: number): string {
    return value >= 1024 ? `${this.#two.format(value / 1024)}\u00a0GB` : `${this.#whole.format(value)}\u00a0MB`;
  }

  /** Megabytes on an axis, where the steps are round. */
  axisMegabytes(value: number): string {
    const [shown, unit] = value >= 1024 ? [value / 1024, "GB"] : [value, "MB"];
    return value === 0 ? "0" : `${this.#short.format(shown)}\u00a0${unit}`;
  }

  /** Percent on an axis, where the steps are whole. */
  axisPercent(value: number): string {
    return `${this.#short.format(value)}\u00a0%`;
  }

  /** Few digits, however large or small. */
  rate(value: number): string {
    return value >= 100 ? this.#whole.format(value) : this.#one.format(value);
  }

  whole(value: number): string {
    return this.#whole.format(value);
  }
}

/** HH:MM:SS of the reader's own clock. */
export function clock(ms: number): string {
  const date = new Date(ms);
  const two = (n: number) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Digits in groups of three, from the right: "1234567" gives ["1", "234", "567"]. */
export function groups(value: number): string[] {
  const digits = String(Math.trunc(value));
  const first = digits.length % 3 || 3;
  const result = [digits.slice(0, first)];
  for (let i = first; i < digits.length; i += 3) result.push(digits.slice(i, i + 3));
  return result;
}
