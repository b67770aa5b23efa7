/** Every word of the page, in both languages. */

export type Language = "es" | "en";

const en = {
  title: "Telemetry",
  language: "Language",
  now: "Now",
  ram: "RAM",
  cpu: "CPU",
  processes: "Processes",
  records: "Records",
  ramOverTime: "RAM over time",
  cpuOverTime: "CPU over time",
  window: "Time shown",
  split: "Split between the APIs",
  splitWindow: "last {s} s",
  splitEmpty: "No records in this window.",
  share: "Share",
  inWindow: "In window",
  total: "Total",
  processStates: "Processes by state",
  state: "State",
  count: "Count",
  running: "Running",
  sleeping: "Sleeping",
  zombie: "Zombie",
  stopped: "Stopped",
  other: "Other",
  lastRecord: "Last record",
  noRecords: "No records yet. Post one to {url}/api.",
  recent: "Recent records",
  time: "Time",
  used: "Used",
  free: "Free",
  takenBy: "Taken by",
  ofTotal: "{used} of {total}",
  freeShare: "{free} free",
  runningSleeping: "{running} running · {sleeping} sleeping",
  perSecond: "{n} per second",
  chartLabel: "{what}: now {now}, lowest {low}, highest {high} in the time shown",
  chartEmpty: "No data yet",
  revision: "Cloud Run: {service}, revision {revision}",
  connecting: "Connecting…",
  connected: "Live",
  reconnecting: "Connection lost, trying again",
  "database-away": "Database away, values are the last known",
  misconfigured: "Configuration missing",
  attempts: "attempt {n}",
  retryIn: "next try in {s} s",
};

export type Key = keyof typeof en;

const es: Record<Key, string> = {
  title: "Telemetría",
  language: "Idioma",
  now: "Ahora",
  ram: "RAM",
  cpu: "CPU",
  processes: "Procesos",
  records: "Registros",
  ramOverTime: "RAM en el tiempo",
  cpuOverTime: "CPU en el tiempo",
  window: "Tiempo mostrado",
  split: "Reparto entre las API",
  splitWindow: "últimos {s} s",
  splitEmpty: "Sin registros en esta ventana.",
  share: "Parte",
  inWindow: "En ventana",
  total: "Total",
  processStates: "Procesos por estado",
  state: "Estado",
  count: "Cantidad",
  running: "Corriendo",
  sleeping: "Durmiendo",
  zombie: "Zombi",
  stopped: "Parados",
  other: "Otros",
  lastRecord: "Último registro",
  noRecords: "Aún no hay registros. Envíe uno a {url}/api.",
  recent: "Registros recientes",
  time: "Hora",
  used: "En uso",
  free: "Libre",
  takenBy: "Recibido por",
  ofTotal: "{used} de {total}",
  freeShare: "{free} libre",
  runningSleeping: "{running} corriendo · {sleeping} durmiendo",
  perSecond: "{n} por segundo",
  chartLabel: "{what}: ahora {now}, mínimo {low}, máximo {high} en el tiempo mostrado",
  chartEmpty: "Aún no hay datos",
  revision: "Cloud Run: {service}, revisión {revision}",
  connecting: "Conectando…",
  connected: "En vivo",
  reconnecting: "Conexión perdida, reintentando",
  "database-away": "Base de datos ausente, se muestran los últimos valores",
  misconfigured: "Falta la configuración",
  attempts: "intento {n}",
  retryIn: "próximo intento en {s} s",
};

const words: Record<Language, Record<Key, string>> = { es, en };

/** `?lang=` decides, else the first of the browser's languages that we have, else English. */
export function pickLanguage(search: string, preferred: readonly string[]): Language {
  const asked = new URLSearchParams(search).get("lang");
  for (const tag of asked === null ? preferred : [asked, ...preferred]) {
    const language = tag.toLowerCase().split("-")[0];
    if (language === "es" || language === "en") return language;
  }
  return "en";
}

export function translate(language: Language, key: Key, values: Record<string, string | number> = {}): string {
  return words[language][key].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}
