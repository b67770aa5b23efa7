// The log: a JSON object a line on standard error, with the members that Google
// Cloud's and most other collectors understand.

const LEVELS = ["debug", "info", "warn", "error", "off"];
const SEVERITIES = { debug: "DEBUG", info: "INFO", warn: "WARNING", error: "ERROR" };

let least = LEVELS.indexOf("info");

/** Shows what is of this level or above: debug, info, warn, error, off. */
export function setLevel(level) {
  least = LEVELS.indexOf(level);
}

function write(level, message, more) {
  if (LEVELS.indexOf(level) < least) return;
  const time = new Date().toISOString();
  const line = { time, severity: SEVERITIES[level], message, ...more };
  process.stderr.write(`${JSON.stringify(line, shown)}\n`);
}

function shown(_, value) {
  return value instanceof Error ? (value.stack ?? String(value)) : value;
}

export const log = {
  debug: (message, more) => write("debug", message, more),
  info: (message, more) => write("info", message, more),
  warn: (message, more) => write("warn", message, more),
  error: (message, more) => write("error", message, more),
};
