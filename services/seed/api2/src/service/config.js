// The environment of a service, read once: everything that is wrong with it is
// reported together, and no secret is ever shown.

import { inspect } from "node:util";

// LOG_LEVEL in the words of Rust, Python and Node.js: one ConfigMap serves all.
const LEVELS = new Map(
  Object.entries({
    off: "off",
    silent: "off",
    error: "error",
    critical: "error",
    fatal: "error",
    warn: "warn",
    warning: "warn",
    info: "info",
    notice: "info",
    debug: "debug",
    verbose: "debug",
    trace: "debug",
    silly: "debug",
  }),
);

/** Everything that is wrong with the environment, a sentence for each variable. */
export class ConfigError extends Error {
  constructor(problems) {
    super(["the environment can't be used:", ...problems].join("\n  "));
    this.problems = problems;
  }
}

/** A value that must not reach a log: only `reveal` shows it. */
export class Secret {
  #value;

  constructor(value) {
    this.#value = value;
  }

  reveal() {
    return this.#value;
  }

  toJSON() {
    return "<hidden>";
  }

  [inspect.custom]() {
    return "<hidden>";
  }
}

/**
 * Reads and checks all variables.
 *
 * @param {{apiName: string, port: number}} defaults what the service is called and
 *   listens on unless the environment says otherwise
 * @throws {ConfigError} with every problem found
 */
export function readConfig(defaults, env = process.env) {
  const reader = new Reader(env);
  const config = {
    database: {
      host: reader.text("DB_HOST") ?? "cloudsql",
      port: reader.number("DB_PORT", 3306, 1, 65_535),
      user: reader.required("DB_USER"),
      password: new Secret(reader.secret("DB_PASSWORD")),
      name: reader.text("DB_NAME") ?? "telemetry",
      // Connections are opened when needed, never more than this.
      poolMax: reader.number("DB_POOL_MAX", 10, 1, 1000),
      // How long a request waits for a connection before it is answered 503.
      acquireTimeoutMs: reader.number("DB_ACQUIRE_TIMEOUT_MS", 2000, 10, 60_000),
    },
    port: reader.number("PORT", defaults.port, 1, 65_535),
    // What stamps the rows; at most 32 characters, as the column has.
    apiName: reader.apiName(defaults.apiName),
    // undefined: no page of another origin may call; ["*"]: any; else these.
    corsOrigins: reader.cors(),
    logLevel: reader.logLevel(),
  };
  if (reader.problems.length > 0) throw new ConfigError(reader.problems);
  return config;
}

class Reader {
  problems = [];

  constructor(env) {
    this.env = env;
  }

  /** Set but empty counts as not set: in a ConfigMap that is how one says "nothing". */
  text(name) {
    const text = this.env[name] ?? "";
    if (isBroken(text)) {
      this.problems.push(`${name} is not valid UTF-8`);
      return undefined;
    }
    return text.trim() || undefined;
  }

  required(name) {
    const before = this.problems.length;
    const value = this.text(name);
    if (value === undefined && this.problems.length === before) {
      this.problems.push(`${name} is not set; it comes from the Secret cloudsql-credentials`);
    }
    return value ?? "";
  }

  /** Like `required`, but an empty value is a value and blanks count. */
  secret(name) {
    const value = this.env[name];
    return value === undefined || isBroken(value) ? this.required(name) : value;
  }

  number(name, byDefault, least, most) {
    const text = this.text(name);
    if (text === undefined) return byDefault;
    const number = Number(text);
    if (/^\+?[0-9]+$/.test(text) && number >= least && number <= most) return number;
    this.problems.push(
      `${name} is \`${text}\`; expected a whole number from ${least} to ${most} (default ${byDefault})`,
    );
    return byDefault;
  }

  apiName(byDefault) {
    const name = this.text("API_NAME") ?? byDefault;
    if ([...name].length > 32 || /\p{Cc}/u.test(name)) {
      const shown = JSON.stringify(name).slice(1, -1);
      this.problems.push(`API_NAME is \`${shown}\`; expected at most 32 printable characters`);
    }
    return name;
  }

  cors() {
    const text = this.text("CORS_ORIGIN");
    if (text === undefined) return undefined;
    const origins = [];
    for (const part of text.split(",").map((one) => one.trim()).filter(Boolean)) {
      if (part === "*") return ["*"];
      // Browsers send scheme, host and port only, without a slash.
      const origin = part.replace(/\/$/, "");
      if (!/^[^:]*:\/\/[^/ ?#]+$/.test(origin)) {
        this.problems.push(
          `CORS_ORIGIN has \`${origin}\`; expected \`*\` or origins such as https://example.com, separated by commas`,
        );
      }
      origins.push(origin.toLowerCase());
    }
    return origins;
  }

  logLevel() {
    const text = this.text("LOG_LEVEL") ?? "info";
    const level = LEVELS.get(text.toLowerCase());
    if (level !== undefined) return level;
    // A filter as the Rust services take it, `info,telemetry=debug`: its own
    // level counts, and of targets nothing is known here.
    const directives = text.toLowerCase().split(",").map((one) => one.trim());
    const known = directives.every((one) => LEVELS.has(one.slice(one.lastIndexOf("=") + 1)));
    if (!known || !/[=,]/.test(text)) {
      this.problems.push(
        `LOG_LEVEL is \`${text}\`; expected off, error, warn, info, debug, trace, or a filter such as \`info,telemetry=debug\``,
      );
      return "info";
    }
    const own = directives.filter((one) => !one.includes("=")).pop();
    return own === undefined ? "error" : LEVELS.get(own);
  }
}

/** Whether the bytes behind it were no UTF-8: Node.js shows such as U+FFFD. */
function isBroken(text) {
  return text.includes("\ufffd");
}
