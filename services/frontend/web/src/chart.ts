/** A line over time, drawn by hand as SVG in pixels of its place. */

import { svg } from "./dom.js";
import { clock } from "./format.js";
import type { Reading } from "./model.js";
import { decimate, nearest, timeTicks, visible, type Point } from "./series.js";

export interface View {
  readings: readonly Reading[];
  from: number;
  to: number;
  value: (reading: Reading) => number;
  /** Top of the scale, for what is visible. */
  scale: (visible: readonly Reading[]) => number;
  format: (value: number) => string;
  /** As `format`, for the round values of the axis. */
  axis: (value: number) => string;
  /** For those who do not see the drawing. */
  label: (now: string, low: string, high: string) => string;
  empty: string;
}

const TOP = 10;
const BOTTOM = 22;
const RIGHT = 10;

export class Chart {
  readonly #place: HTMLElement;
  readonly #svg: SVGElement;
  readonly #tip: HTMLElement;
  #view: View | null = null;
  #pointer: number | null = null;
  #drawing = false;

  constructor(place: HTMLElement) {
    this.#place = place;
    this.#svg = svg("svg", { role: "img", focusable: "false" });
    this.#tip = document.createElement("div");
    this.#tip.className = "tip";
    this.#tip.hidden = true;
    place.append(this.#svg, this.#tip);
    place.addEventListener("pointermove", (event) => {
      this.#pointer = event.clientX - place.getBoundingClientRect().left;
      this.#later();
    });
    place.addEventListener("pointerleave", () => {
      this.#pointer = null;
      this.#later();
    });
    new ResizeObserver(() => this.#later()).observe(place);
  }

  show(view: View): void {
    this.#view = view;
    this.#later();
  }

  /** Once a frame is enough, however often data come. */
  #later(): void {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#draw();
    });
  }

  #draw(): void {
    const view = this.#view;
    const width = this.#place.clientWidth;
    const height = this.#place.clientHeight;
    if (!view || width < 40 || height < 40) return;
    const shown = visible(view.readings, view.from, view.to);
    const top = view.scale(shown);
    const labels = [0, 0.25, 0.5, 0.75, 1].map((part) => ({ part, text: shown.length > 0 ? view.axis(top * part) : "" }));
    // Digits of the labels' font are about 6.6 pixels wide.
    const left = Math.ceil(Math.max(...labels.map(({ text }) => text.length)) * 6.6) + 12;
    const x = (at: number) => left + ((at - view.from) / (view.to - view.from)) * (width - left - RIGHT);
    const y = (value: number) => height - BOTTOM - (Math.min(value, top) / top) * (height - TOP - BOTTOM);

    const parts: Node[] = [];
    for (const { part, text } of labels) {
      const at = Math.round(y(top * part)) + 0.5;
      parts.push(svg("line", { class: "grid", x1: left, x2: width - RIGHT, y1: at, y2: at }));
      parts.push(label(text, left - 8, at + 4, "end"));
    }
    for (const tick of timeTicks(view.from, view.to, width - left - RIGHT, 76)) {
      const at = Math.round(x(tick)) + 0.5;
      parts.push(svg("line", { class: "grid", x1: at, x2: at, y1: height - BOTTOM, y2: height - BOTTOM + 4 }));
      // Half a label on either side must fit.
      if (at > left + 24 && at < width - 26) parts.push(label(clock(tick), at, height - 6, "middle"));
    }

    const points: Point[] = decimate(
      shown.map((reading) => ({ x: reading.at, y: view.value(reading) })),
      Math.max(1, Math.floor(width - left - RIGHT)),
      view.from,
      view.to,
    );
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (points.length > 0) parts.push(...line(points, x, y, left, height - BOTTOM));
    else parts.push(label(view.empty, (left + width - RIGHT) / 2, (height - BOTTOM + TOP) / 2, "middle"));
    parts.push(...this.#cursor(view, shown, x, y, left, width, height));
    this.#svg.replaceChildren(...parts);

    const values = shown.map(view.value);
    const now = values[values.length - 1];
    const text =
      now === undefined
        ? view.empty
        : view.label(view.format(now), view.format(Math.min(...values)), view.format(Math.max(...values)));
    if (this.#svg.getAttribute("aria-label") !== text) this.#svg.setAttribute("aria-label", text);
  }

  #cursor(
    view: View,
    shown: readonly Reading[],
    x: (at: number) => number,
    y: (value: number) => number,
    left: number,
    width: number,
    height: number,
  ): Node[] {
    const pointer = this.#pointer;
    this.#tip.hidden = true;
    if (pointer === null || pointer < left || shown.length === 0) return [];
    const at = view.from + ((pointer - left) / (width - left - RIGHT)) * (view.to - view.from);
    const reading = nearest(shown, at);
    if (!reading || reading.at < view.from) return [];
    const px = x(reading.at);
    const py = y(view.value(reading));
    this.#tip.hidden = false;
    this.#tip.textContent = `${clock(reading.at)}  ${view.format(view.value(reading))}  ${reading.api}`;
    const half = this.#tip.offsetWidth / 2;
    this.#tip.style.left = `${Math.min(Math.max(px, half + 2), width - half - 2)}px`;
    this.#tip.style.top = `${py > 44 ? py - 36 : py + 12}px`;
    return [
      svg("line", { class: "cursor", x1: px, x2: px, y1: TOP, y2: height - BOTTOM }),
      svg("circle", { class: "mark", cx: px, cy: py, r: 4 }),
    ];
  }
}

function label(text: string, x: number, y: number, anchor: string): SVGElement {
  const made = svg("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

/** The line, its area down to the axis, and a dot at its end. What lies left of the axis is cut off. */
function line(
  points: Point[],
  x: (at: number) => number,
  y: (value: number) => number,
  left: number,
  floor: number,
): Node[] {
  const places = points.map((point) => ({ x: x(point.x), y: y(point.y) }));
  const [first, second] = places;
  if (first && second && first.x < left) {
    // Enter at the axis, at the height that the line has there.
    const part = (left - first.x) / (second.x - first.x);
    places[0] = { x: left, y: first.y + (second.y - first.y) * part };
  } else if (first && first.x < left) {
    return [];
  }
  const path = places.map(({ x: px, y: py }, i) => `${i === 0 ? "M" : "L"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
  const start = places[0]!;
  const end = places[places.length - 1]!;
  return [
    svg("path", { class: "area", d: `${path}L${end.x.toFixed(1)} ${floor}L${start.x.toFixed(1)} ${floor}Z` }),
    svg("path", { class: "line", d: path }),
    svg("circle", { class: "end", cx: end.x.toFixed(1), cy: end.y.toFixed(1), r: 3 }),
  ];
}
