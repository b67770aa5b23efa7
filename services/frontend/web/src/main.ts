import "./style.css";
import { Chart } from "./chart.js";
import { loadConfig, type Config } from "./config.js";
import { next, start, type Connection } from "./connection.js";
import { byId } from "./dom.js";
import { connect } from "./feed.js";
import { pickLanguage, type Language } from "./i18n.js";
import type { Metrics, Reading, Split } from "./model.js";
import { memoryScale, percentScale, Series } from "./series.js";
import { Rate } from "./split.js";
import { View } from "./view.js";

const view = new View();
const series = new Series();
const rate = new Rate(3000);
const ram = new Chart(byId("chart-ram"));
const cpu = new Chart(byId("chart-cpu"));

let connection: Connection = start;
let config: Config = { api3Url: "", ingressUrl: "", service: "", revision: "" };
let metrics: Metrics | null = null;
let split: Split | null = null;
let perSecond: number | null = null;
let windowMs = 60_000;

function charts(): void {
  const to = series.edge(windowMs, Date.now());
  const common = { readings: series.all, from: to - windowMs, to, empty: view.t("chartEmpty") };
  ram.show({
    ...common,
    value: (reading: Reading) => reading.usedRam,
    scale: (shown) => memoryScale(Math.max(1, ...shown.map((reading) => reading.totalRam))),
    format: (value) => view.format.megabytes(value),
    axis: (value) => view.format.axisMegabytes(value),
    label: (now, low, high) => view.t("chartLabel", { what: view.t("ramOverTime"), now, low, high }),
  });
  cpu.show({
    ...common,
    value: (reading: Reading) => reading.cpuPercent,
    scale: (shown) => percentScale(Math.max(0, ...shown.map((reading) => reading.cpuPercent))),
    format: (value) => view.format.percent(value),
    axis: (value) => view.format.axisPercent(value),
    label: (now, low, high) => view.t("chartLabel", { what: view.t("cpuOverTime"), now, low, high }),
  });
}

function figures(): void {
  if (!metrics) return;
  view.totals(metrics.total, perSecond);
  view.split(split, metrics.counts);
  view.reading(metrics.reading);
}

function everything(): void {
  view.connection(connection, Date.now());
  view.configured(config);
  figures();
  view.recent(series.all);
  charts();
}

function setLanguage(language: Language): void {
  view.speak(language);
  everything();
}

function setWindow(seconds: number): void {
  windowMs = seconds * 1000;
  for (const button of document.querySelectorAll<HTMLElement>("[data-window]")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset["window"]) === seconds));
  }
  charts();
}

function happened(what: Parameters<typeof next>[1]): void {
  const after = next(connection, what);
  if (after === connection) return;
  connection = after;
  view.connection(connection, Date.now());
}

async function run(): Promise<void> {
  for (const button of document.querySelectorAll<HTMLElement>("[data-lang]")) {
    button.addEventListener("click", () => {
      const language = button.dataset["lang"] as Language;
      const url = new URL(window.location.href);
      url.searchParams.set("lang", language);
      history.replaceState(null, "", url);
      setLanguage(language);
    });
  }
  for (const button of document.querySelectorAll<HTMLElement>("[data-window]")) {
    button.addEventListener("click", () => setWindow(Number(button.dataset["window"])));
  }
  setLanguage(pickLanguage(window.location.search, navigator.languages));
  setWindow(60);

  try {
    config = await loadConfig();
  } catch (error) {
    happened({ kind: "misconfigured", reason: error instanceof Error ? error.message : String(error) });
    return;
  }
  view.configured(config);
  connect(config.api3Url, {
    happened,
    metrics(update) {
      const now = Date.now();
      // Fewer rows than before: the table was emptied, and what is drawn was of another one.
      if (metrics && update.total < metrics.total) series.clear();
      const first = metrics === null;
      metrics = update;
      perSecond = rate.update(update.total, now);
      // The first one may be old and tells nothing about the server's clock.
      const { reading } = update;
      const fresh = reading !== null && (first ? series.add([reading]) : series.addLive(reading, now));
      figures();
      if (fresh) view.recent(series.all);
      charts();
    },
    split(update) {
      split = update;
      if (metrics) view.split(split, metrics.counts);
    },
    history(readings) {
      if (!series.add(readings)) return;
      view.recent(series.all);
      charts();
    },
  });
  // The clock moves the charts and the countdown when nothing else does.
  setInterval(() => {
    charts();
    if (connection.state === "database-away") view.connection(connection, Date.now());
  }, 1000);
}

void run();
