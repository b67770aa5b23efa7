// The database behind `cloudsql`: a lazy pool, and what its errors mean for a caller.

import mysql from "mysql2/promise";

import { log } from "./log.js";

/** A connection that lay idle for longer is asked before it is used: while the
 * service is busy nothing is asked, and after a restart of the database no
 * request is spent on finding out that the old connections are dead. */
const ASK_AFTER_IDLE_MS = 500;

/** How many requests may wait for a connection: enough for any burst that the
 * database can catch up with in time, and few while it is away, so that an
 * outage costs neither memory nor two seconds a request. */
const WAITING_WHEN_HERE = 2048;
const WAITING_WHEN_AWAY = 64;

/** Rows and keys are only ever added: no gap locks needed, and so hardly ever a
 * deadlock. A duplicate waits for the first of its key, but not for a minute. */
const SESSION = [
  "SET SESSION time_zone = '+00:00'",
  "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
  "SET SESSION innodb_lock_wait_timeout = 3",
];

/** The database did not do what it was asked. */
export class DbError extends Error {
  /** Whether the same request may succeed later without anyone's change. */
  passing = true;
}

/** It can't be reached, or is not able to serve for now. */
export class DbAway extends DbError {
  constructor(cause) {
    super("the database can't be reached", { cause });
  }
}

/** More requests wait for a connection than can be served in time. */
export class DbBusy extends DbError {
  constructor() {
    super("too many requests wait for the database already");
  }
}

/** It took the statement and did not answer. */
export class DbLate extends DbError {
  constructor(limitMs) {
    super(`the database did not answer within ${limitMs}ms`);
  }
}

/** Every attempt was rolled back because of another transaction's locks. */
export class DbContended extends DbError {
  constructor(cause) {
    super("the database rolled back every attempt because of other transactions", { cause });
  }
}

/** It refused the statement: a mistake of this program or of the schema. */
export class DbRefused extends DbError {
  passing = false;

  constructor(cause) {
    super("the database refused the statement", { cause });
  }
}

/** What an error of the driver means. */
export const Fault = Object.freeze({
  /** The server is away or not able to serve; what was asked may have been done. */
  AWAY: "away",
  /** The transaction was rolled back because of locks: try again. */
  ROLLED_BACK: "rolled back",
  /** A row with this key exists. */
  DUPLICATE: "duplicate",
  /** The statement itself was refused. */
  REFUSED: "refused",
  /** No error of the driver at all. */
  NONE: "none",
});

// Numbers: MySQL's "Server Error Message Reference", and MariaDB's error codes
// from 1900 on.
const DUPLICATE = 1062;
// 1020: MariaDB 11.6.2 and newer, a row changed since the snapshot.
const ROLLED_BACK = new Set([1020, 1205, 1213]);
// Starting, stopping, too many connections, credentials or schema not there yet,
// read-only (a failover), disk full, killed.
const AWAY = new Set([
  1021, 1030, 1040, 1044, 1045, 1049, 1053, 1077, 1078, 1079, 1080, 1114, 1129, 1130, 1146, 1152,
  1158, 1159, 1160, 1161, 1180, 1184, 1203, 1226, 1290, 1317, 1792, 1836, 1927, 1969, 3024, 3032,
  3168, 3169, 3170, 4031,
]);

/** Sorts an error of the driver. */
export function fault(error) {
  // The server's own errors have a state; else the client or the system speaks,
  // and always of a connection that is lost or out of step.
  if (error?.sqlState === undefined) {
    return error?.fatal || typeof error?.code === "string" ? Fault.AWAY : Fault.NONE;
  }
  if (error.errno === DUPLICATE) return Fault.DUPLICATE;
  if (ROLLED_BACK.has(error.errno)) return Fault.ROLLED_BACK;
  return AWAY.has(error.errno) ? Fault.AWAY : Fault.REFUSED;
}

/** The error of this module for one of the driver's; any other as it is. */
export function sorted(error) {
  switch (fault(error)) {
    case Fault.AWAY:
      return new DbAway(error);
    case Fault.ROLLED_BACK:
      return new DbContended(error);
    case Fault.DUPLICATE:
    case Fault.REFUSED:
      return new DbRefused(error);
    default:
      return error;
  }
}

/** A refusal that is the work's own finding: the connection is as good as before. */
export class Refusal extends Error {}

/** A pool that opens its first connection when one is needed. */
export class Database {
  /** Whether the last thing heard of the database was that it is away. */
  away = false;
  #waiting = 0;
  #inUse = 0;
  #open = new Set();
  #pool;
  /** When each connection was given back, by the driver's own object for it. */
  #givenBack = new WeakMap();
  #config;

  constructor(config) {
    this.#config = config;
    this.#pool = mysql.createPool({
      host: config.host,
      port: config.port,
      user: config.user,
      password: config.password.reveal(),
      database: config.name,
      charset: "utf8mb4",
      connectionLimit: config.poolMax,
      maxIdle: Math.max(config.poolMax - 1, 1),
      idleTimeout: 300_000,
      connectTimeout: config.acquireTimeoutMs,
      // The driver's own reading of a number's text is off by a bit now and then.
      typeCast: (field, next) => {
        if (field.type !== "DOUBLE") return next();
        const text = field.string();
        return text === null ? null : Number(text);
      },
    });
    this.#pool.on("connection", (connection) => {
      this.#open.add(connection);
      connection.stream.once("close", () => this.#open.delete(connection));
      // Sent before anything that the connection is wanted for, which fails as
      // well when these do.
      for (const statement of SESSION) {
        connection.query(statement, (error) => error && connection.destroy());
      }
    });
  }

  /** Connections in use, connections idle, most that may be opened. */
  connections() {
    const idle = Math.max(this.#open.size - this.#inUse, 0);
    return { inUse: this.#inUse, idle, max: this.#config.poolMax };
  }

  /**
   * Does `work` on a connection within `limitMs`. A connection on which work was
   * cut off is closed, which rolls back.
   *
   * @throws {DbAway | DbBusy | DbLate} when the connection is not had, is lost or
   *   time ran out; other errors are the driver's, for the caller to sort
   */
  async run(work, limitMs) {
    const connection = await this.#acquire();
    this.#inUse += 1;
    let sound = false;
    try {
      const done = await within(limitMs, work(connection));
      sound = true;
      return done;
    } catch (error) {
      if (error instanceof DbLate) throw error;
      if (fault(error) === Fault.AWAY) {
        this.#noteAway(error);
        throw new DbAway(error);
      }
      sound = fault(error) !== Fault.NONE || error instanceof Refusal;
      throw error;
    } finally {
      this.#inUse -= 1;
      if (sound) this.#giveBack(connection);
      else connection.destroy();
    }
  }

  /** Like `run`, with the driver's errors sorted. */
  async query(work, limitMs) {
    try {
      return await this.run(work, limitMs);
    } catch (error) {
      throw sorted(error);
    }
  }

  /** Throws unless a connection is had within `limitMs` and the table is there. */
  async check(limitMs) {
    await within(
      limitMs,
      this.query((connection) => connection.query("SELECT 1 FROM records LIMIT 1"), limitMs),
    );
  }

  /** Closes the pool once what is in use came back, or after `limitMs`. */
  async close(limitMs) {
    await within(limitMs, this.#pool.end()).catch((error) => {
      log.debug("closing the pool failed", { error: error.message });
    });
  }

  /** Gives a connection that works, as far as can be known without asking. */
  async #acquire() {
    if (this.#waiting >= (this.away ? WAITING_WHEN_AWAY : WAITING_WHEN_HERE)) throw new DbBusy();
    this.#waiting += 1;
    let connection;
    try {
      connection = await this.#connect(Date.now() + this.#config.acquireTimeoutMs);
    } catch (error) {
      this.#noteAway(error);
      throw error instanceof DbError ? error : new DbAway(error);
    } finally {
      this.#waiting -= 1;
    }
    if (this.away) {
      this.away = false;
      log.info("the database is back");
    }
    return connection;
  }

  async #connect(deadline) {
    for (let pauseMs = 10; ; pauseMs = Math.min(pauseMs * 2, 250)) {
      const leftMs = deadline - Date.now();
      const coming = this.#pool.getConnection();
      let connection;
      try {
        connection = await within(leftMs, coming);
      } catch (error) {
        // Too late for this request, not for the pool.
        if (error instanceof DbLate) coming.then((late) => late.release(), () => {});
        // Nobody listens: the server may be starting, so wait for it as long as
        // the request waits. What the server itself says is final.
        if (error.code !== "ECONNREFUSED" || leftMs <= pauseMs) throw new DbAway(error);
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        continue;
      }
      try {
        const idleMs = Date.now() - (this.#givenBack.get(connection.connection) ?? Date.now());
        if (idleMs > ASK_AFTER_IDLE_MS) await within(deadline - Date.now(), connection.ping());
        return connection;
      } catch {
        // It was dead; another one, or a new one, may not be.
        connection.destroy();
      }
    }
  }

  #giveBack(connection) {
    this.#givenBack.set(connection.connection, Date.now());
    connection.release();
  }

  /** Notes that the database is away, and logs it once. */
  #noteAway(error) {
    if (this.away) return;
    this.away = true;
    const cause = error.cause ?? error;
    log.warn("the database is away", { error: cause.message || String(cause.code ?? cause) });
  }
}

/** What `promise` gives, or DbLate after `limitMs`; what it does later is nobody's. */
export async function within(limitMs, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new DbLate(limitMs)), Math.max(limitMs, 0));
  });
  promise.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
