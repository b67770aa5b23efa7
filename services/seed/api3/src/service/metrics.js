// Counters in Prometheus' text format, kept by hand: there are five.

/** Upper bounds of the latency histogram, seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** A method is the client's text: only the usual ones get a line each. */
const METHODS = new Set(["GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"]);

/** One service's counters. */
export class Metrics {
  /** By labels. A few dozen entries at most: routes are templates, not paths. */
  #requests = new Map();
  #records = 0;
  #buckets = BUCKETS.map(() => 0);
  #inserts = 0;
  #seconds = 0;

  /** Counts one answered request; `route` is the route's template. */
  request(route, method, status) {
    const labels = `route="${escape(route)}",method="${METHODS.has(method) ? method : "other"}",status="${status}"`;
    this.#requests.set(labels, (this.#requests.get(labels) ?? 0) + 1);
  }

  /** Counts one committed write of `records` rows. */
  insert(records, seconds) {
    BUCKETS.forEach((bound, at) => {
      if (seconds <= bound) this.#buckets[at] += 1;
    });
    this.#records += records;
    this.#inserts += 1;
    this.#seconds += seconds;
  }

  /** All of it as text, version 0.0.4 of the format. */
  render(apiName, db) {
    const api = `api="${escape(apiName)}"`;
    const { inUse, idle, max } = db.connections();
    const lines = [];
    const head = (name, kind, help) => {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`);
    };
    head("telemetry_http_requests_total", "counter", "Answered requests.");
    for (const [labels, count] of this.#requests) {
      lines.push(`telemetry_http_requests_total{${api},${labels}} ${count}`);
    }
    head("telemetry_records_inserted_total", "counter", "Committed records.");
    lines.push(`telemetry_records_inserted_total{${api}} ${this.#records}`);
    head("telemetry_insert_seconds", "histogram", "Time of a committed write.");
    [...BUCKETS, "+Inf"].forEach((bound, at) => {
      const count = this.#buckets[at] ?? this.#inserts;
      lines.push(`telemetry_insert_seconds_bucket{${api},le="${bound}"} ${count}`);
    });
    lines.push(`telemetry_insert_seconds_sum{${api}} ${this.#seconds}`);
    lines.push(`telemetry_insert_seconds_count{${api}} ${this.#inserts}`);
    head("telemetry_db_connections", "gauge", "Connections of the pool.");
    lines.push(`telemetry_db_connections{${api},state="in_use"} ${inUse}`);
    lines.push(`telemetry_db_connections{${api},state="idle"} ${idle}`);
    head("telemetry_db_connections_max", "gauge", "Most connections of the pool.");
    lines.push(`telemetry_db_connections_max{${api}} ${max}`);
    head("telemetry_db_up", "gauge", "Whether the database answered last.");
    lines.push(`telemetry_db_up{${api}} ${db.away ? 0 : 1}`);
    return `${lines.join("\n")}\n`;
  }
}

/** A label's value. */
function escape(text) {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
