/** The state of the way to the data, as a pure function of what happened. */

export type State = "connecting" | "connected" | "reconnecting" | "database-away" | "misconfigured";

export interface Connection {
  state: State;
  /** Failed attempts since the connection was lost. */
  attempts: number;
  /** When the database is asked again, milliseconds since 1970; 0 when not waiting. */
  retryAt: number;
  /** What api3 or the browser said. */
  reason: string;
}

export type Happening =
  | { kind: "connected" }
  | { kind: "data" }
  | { kind: "lost"; reason: string }
  | { kind: "attempt-failed"; reason: string }
  | { kind: "database-away"; reason: string; retryInMs: number; now: number }
  | { kind: "misconfigured"; reason: string };

export const start: Connection = { state: "connecting", attempts: 0, retryAt: 0, reason: "" };

export function next(before: Connection, what: Happening): Connection {
  switch (what.kind) {
    case "connected":
      return { ...start, state: "connected" };
    case "data":
      // Data proves that the database is back; nothing else does.
      return before.state === "connected" ? before : { ...start, state: "connected" };
    case "lost":
      return { ...start, state: "reconnecting", reason: what.reason };
    case "attempt-failed":
      return {
        // Whoever never had a connection is still connecting.
        state: before.state === "connecting" ? "connecting" : "reconnecting",
        attempts: before.attempts + 1,
        retryAt: 0,
        reason: what.reason,
      };
    case "database-away":
      return {
        state: "database-away",
        attempts: before.state === "database-away" ? before.attempts + 1 : 1,
        retryAt: what.retryInMs > 0 ? what.now + what.retryInMs : 0,
        reason: what.reason,
      };
    case "misconfigured":
      return { ...start, state: "misconfigured", reason: what.reason };
  }
}

/** Whole seconds until the database is asked again; 0 when that is now. */
export function secondsToRetry(connection: Connection, now: number): number {
  return Math.max(0, Math.ceil((connection.retryAt - now) / 1000));
}
