/** What api3 sends, read with suspicion: a page must not break on a field that is missing or odd. */

export interface Reading {
  id: number;
  api: string;
  /** Milliseconds since 1970, from `created_at`; NaN where it cannot be read. */
  at: number;
  /** The sender's wall clock, as it wrote it. */
  hora: string;
  totalRam: number;
  freeRam: number;
  usedRam: number;
  ramPercent: number;
  cpuPercent: number;
  cpuFree: number;
  running: number;
  sleeping: number;
  zombie: number;
  stopped: number;
  processes: number;
}

export interface Metrics {
  /** Absent while the table is empty. */
  reading: Reading | null;
  counts: Map<string, number>;
  total: number;
}

export interface Split {
  windowSeconds: number;
  byApi: Map<string, number>;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function number(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function counts(value: unknown): Map<string, number> {
  const names = isObject(value) ? Object.keys(value).sort() : [];
  return new Map(names.map((name) => [name, number((value as Record<string, unknown>)[name])]));
}

/** A time that api3 wrote. Without a zone it is UTC, as the database keeps it. */
export function parseTime(value: unknown): number {
  if (typeof value !== "string") return NaN;
  const text = value.trim().replace(" ", "T");
  return Date.parse(/(Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text}Z`);
}

export function parseReading(value: unknown): Reading | null {
  if (!isObject(value) || typeof value["id"] !== "number") return null;
  return {
    id: value["id"],
    api: String(value["api"] ?? "?"),
    at: parseTime(value["created_at"]),
    hora: String(value["hora"] ?? ""),
    totalRam: number(value["total_ram"]),
    freeRam: number(value["ram_libre"]),
    usedRam: number(value["uso_ram"]),
    ramPercent: number(value["porcentaje_ram"]),
    cpuPercent: number(value["porcentaje_cpu_uso"]),
    cpuFree: number(value["porcentaje_cpu_libre"]),
    running: number(value["procesos_corriendo"]),
    sleeping: number(value["procesos_durmiendo"]),
    zombie: number(value["procesos_zombie"]),
    stopped: number(value["procesos_parados"]),
    processes: number(value["total_procesos"]),
  };
}

export function parseMetrics(value: unknown): Metrics | null {
  if (!isObject(value)) return null;
  return {
    reading: parseReading(value["record"]),
    counts: counts(value["counts"]),
    total: number(value["total"]),
  };
}

export function parseSplit(value: unknown): Split | null {
  if (!isObject(value)) return null;
  return { windowSeconds: number(value["window_s"]), byApi: counts(value["by_api"]) };
}

/** The answer to `request-metrics`: the newest records, newest first; null when it is an error. */
export function parseHistory(value: unknown): Reading[] | null {
  const list = isObject(value) ? value["records"] : value;
  if (!Array.isArray(list)) return null;
  return list.map(parseReading).filter((reading): reading is Reading => reading !== null);
}
