/** Writes what is known into the page. */

import { byId, element, setText } from "./dom.js";
import { Format, groups } from "./format.js";
import { translate, type Key, type Language } from "./i18n.js";
import type { Reading, Split } from "./model.js";
import { Palette, shares } from "./split.js";
import { secondsToRetry, type Connection } from "./connection.js";
import type { Config } from "./config.js";

const RECENT = 12;
const COLOURS = 6;

export class View {
  language: Language = "en";
  format = new Format("en");
  readonly #palette = new Palette(COLOURS);

  t(key: Key, values: Record<string, string | number> = {}): string {
    return translate(this.language, key, values);
  }

  speak(language: Language): void {
    this.language = language;
    this.format = new Format(language);
    document.documentElement.lang = language;
    document.title = this.t("title");
    for (const target of document.querySelectorAll<HTMLElement>("[data-t]")) {
      setText(target, this.t(target.dataset["t"] as Key));
    }
    for (const target of document.querySelectorAll<HTMLElement>("[data-t-label]")) {
      target.setAttribute("aria-label", this.t(target.dataset["tLabel"] as Key));
    }
    for (const button of document.querySelectorAll<HTMLElement>("[data-lang]")) {
      button.setAttribute("aria-pressed", String(button.dataset["lang"] === language));
    }
  }

  connection(connection: Connection, now: number): void {
    const place = byId("connection");
    place.dataset["state"] = connection.state;
    place.title = connection.reason;
    document.body.classList.toggle("stale", connection.state !== "connected");
    setText(byId("connection-text"), this.t(connection.state));
    let detail = "";
    if (connection.state === "database-away" && connection.retryAt > 0) {
      detail = this.t("retryIn", { s: secondsToRetry(connection, now) });
    } else if (connection.state === "misconfigured") {
      detail = connection.reason;
    } else if (connection.state !== "connected" && connection.attempts > 0) {
      detail = this.t("attempts", { n: connection.attempts });
    }
    setText(byId("connection-detail"), detail);
  }

  configured(config: Config): void {
    setText(byId("last-empty"), this.t("noRecords", { url: config.ingressUrl || config.api3Url }));
    const place = byId("revision");
    place.hidden = config.service === "";
    setText(place, config.revision || config.service);
    place.title = this.t("revision", { service: config.service, revision: config.revision });
  }

  totals(total: number, rate: number | null): void {
    digits(byId("total"), total);
    setText(byId("rate"), rate === null ? "" : this.t("perSecond", { n: this.format.rate(rate) }));
  }

  reading(reading: Reading | null): void {
    byId("last-empty").hidden = reading !== null;
    if (!reading) return;
    const f = this.format;
    setText(byId("ram-percent"), f.percent(reading.ramPercent));
    setText(
      byId("ram-sub"),
      this.t("ofTotal", { used: f.megabytes(reading.usedRam), total: f.megabytes(reading.totalRam) }),
    );
    setText(byId("cpu-percent"), f.percent(reading.cpuPercent));
    setText(byId("cpu-sub"), this.t("freeShare", { free: f.percent(reading.cpuFree) }));
    digits(byId("processes-total"), reading.processes);
    setText(
      byId("processes-sub"),
      this.t("runningSleeping", { running: f.whole(reading.running), sleeping: f.whole(reading.sleeping) }),
    );
    this.#processes(reading);
    this.#last(reading);
  }

  #processes(reading: Reading): void {
    const states: [Key, number][] = [
      ["running", reading.running],
      ["sleeping", reading.sleeping],
      ["stopped", reading.stopped],
      ["zombie", reading.zombie],
    ];
    const rest = reading.processes - states.reduce((sum, [, n]) => sum + n, 0);
    if (rest > 0) states.push(["other", rest]);
    const whole = Math.max(reading.processes, 1);
    const rows = byId("process-rows");
    bar(
      byId("process-bar"),
      states.map(([key, n]) => ({ name: this.t(key), part: n / whole, className: `state-${key}`, text: "" })),
    );
    rows.replaceChildren(
      ...states.map(([key, n]) => {
        const count = element("td", { class: "n", "data-testid": `process-${key}` });
        digits(count, n);
        return element(
          "tr",
          {},
          element("th", { scope: "row" }, element("i", { class: `swatch state-${key}` }), this.t(key)),
          count,
          element("td", { class: "n" }, this.format.percent((n / whole) * 100)),
        );
      }),
    );
  }

  #last(reading: Reading): void {
    const f = this.format;
    byId("last").dataset["id"] = String(reading.id);
    setText(byId("last-id"), `#${reading.id}`);
    const fields: [string, string, string][] = [
      [this.t("time"), "hora", reading.hora],
      [this.t("takenBy"), "api", reading.api],
      [`RAM · ${this.t("total")}`, "total_ram", f.megabytes(reading.totalRam)],
      [`RAM · ${this.t("used")}`, "uso_ram", `${f.megabytes(reading.usedRam)} (${f.percent(reading.ramPercent)})`],
      [`RAM · ${this.t("free")}`, "ram_libre", f.megabytes(reading.freeRam)],
      [`CPU · ${this.t("used")}`, "porcentaje_cpu_uso", f.percent(reading.cpuPercent)],
      [`CPU · ${this.t("free")}`, "porcentaje_cpu_libre", f.percent(reading.cpuFree)],
      [this.t("processes"), "total_procesos", f.whole(reading.processes)],
    ];
    byId("last-fields").replaceChildren(
      ...fields.map(([name, field, value]) =>
        element("div", {}, element("dt", {}, name), element("dd", { "data-field": field }, value)),
      ),
    );
  }

  split(split: Split | null, totals: ReadonlyMap<string, number>): void {
    const all = shares(split?.byApi ?? new Map(), totals.keys());
    setText(byId("split-window"), split ? this.t("splitWindow", { s: this.format.whole(split.windowSeconds) }) : "");
    const any = all.some(({ share }) => share !== null);
    byId("split-empty").hidden = any || split === null;
    bar(
      byId("split-bar"),
      all.map(({ name, share }) => ({
        name,
        part: share ?? 0,
        className: `api-${this.#palette.slot(name)}`,
        text: share === null ? "" : `${name} ${this.format.percent(share * 100)}`,
      })),
    );
    byId("split-rows").replaceChildren(
      ...all.map(({ name, count, share }) => {
        const slot = this.#palette.slot(name);
        const total = element("td", { class: "n", "data-testid": `count-${name}` });
        digits(total, totals.get(name) ?? 0);
        const inWindow = element("td", { class: "n" });
        digits(inWindow, count);
        const text = share === null ? "–" : this.format.percent(share * 100);
        return element(
          "tr",
          {},
          element("th", { scope: "row" }, element("i", { class: `swatch api-${slot}` }), name),
          element("td", { class: "n", "data-testid": `share-${name}`, "data-share": String(share ?? "") }, text),
          inWindow,
          total,
        );
      }),
    );
  }

  recent(readings: readonly Reading[]): void {
    const f = this.format;
    byId("recent-rows").replaceChildren(
      ...readings
        .slice(-RECENT)
        .reverse()
        .map((reading) =>
          element(
            "tr",
            { "data-id": String(reading.id) },
            cell(String(reading.id)),
            element("td", {}, reading.hora),
            element("td", {}, element("i", { class: `swatch api-${this.#palette.slot(reading.api)}` }), reading.api),
            cell(f.percent(reading.ramPercent)),
            cell(f.megabytes(reading.usedRam)),
            cell(f.percent(reading.cpuPercent)),
            cell(f.whole(reading.running)),
            cell(f.whole(reading.sleeping)),
            cell(f.whole(reading.zombie)),
            cell(f.whole(reading.stopped)),
            cell(f.whole(reading.processes)),
          ),
        ),
    );
  }
}

function cell(text: string): HTMLElement {
  return element("td", { class: "n" }, text);
}

/** Thousands are set apart by space alone: what is copied or read by a test is the plain number. */
function digits(target: HTMLElement, value: number): void {
  if (target.dataset["value"] === String(value)) return;
  target.dataset["value"] = String(value);
  target.replaceChildren(...groups(value).map((group) => element("span", { class: "group" }, group)));
}

interface Segment {
  name: string;
  /** 0..1 */
  part: number;
  className: string;
  /** Shown in the segment where it is wide enough. */
  text: string;
}

/** Segments are kept and resized, so that they can move smoothly. */
function bar(place: HTMLElement, segments: readonly Segment[]): void {
  while (place.children.length > segments.length) place.lastElementChild?.remove();
  segments.forEach(({ part, className, text }, i) => {
    let segment = place.children[i] as HTMLElement | undefined;
    if (!segment) place.append((segment = element("div")));
    segment.className = `segment ${className}`;
    segment.style.width = `${(part * 100).toFixed(2)}%`;
    setText(segment, part >= 0.2 ? text : "");
  });
  const label = segments.map(({ name, part }) => `${name} ${(part * 100).toFixed(1)} %`).join(", ");
  if (place.getAttribute("aria-label") !== label) place.setAttribute("aria-label", label);
}
