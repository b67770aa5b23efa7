/** The Socket.IO connection to api3: turns its events into readings and states. */

import { io, type Socket } from "socket.io-client";
import type { Happening } from "./connection.js";
import {
  parseHistory,
  parseMetrics,
  parseSplit,
  type Metrics,
  type Reading,
  type Split,
} from "./model.js";

/** As many records as api3 gives at once. */
const HISTORY = 500;

export interface Listener {
  happened(what: Happening): void;
  metrics(metrics: Metrics): void;
  split(split: Split): void;
  history(readings: Reading[]): void;
}

export function connect(url: string, listener: Listener): Socket {
  const socket = io(url === "" ? window.location.origin : url, {
    path: "/socket.io",
    // WebSocket first: polling needs every request of a session to reach the same replica of api3.
    transports: ["websocket", "polling"],
    tryAllTransports: true,
    reconnectionDelay: 250,
    reconnectionDelayMax: 2000,
    timeout: 5000,
  });
  const askHistory = () => {
    socket.timeout(10_000).emit("request-metrics", { limit: HISTORY }, (error: Error | null, answer: unknown) => {
      const readings = error ? null : parseHistory(answer);
      if (readings) listener.history(readings);
    });
  };
  // Whether the history still has to be had: at the start, and after every gap.
  let wanted = true;
  socket.on("connect", () => {
    wanted = false;
    listener.happened({ kind: "connected" });
    askHistory();
  });
  socket.on("disconnect", (reason) => {
    listener.happened({ kind: "lost", reason });
    // The server says goodbye when it is replaced; the client does not come back from that by itself.
    if (reason === "io server disconnect") socket.connect();
  });
  socket.on("connect_error", (error) => listener.happened({ kind: "attempt-failed", reason: error.message }));
  socket.on("metrics-update", (payload: unknown) => {
    const metrics = parseMetrics(payload);
    if (!metrics) return;
    listener.happened({ kind: "data" });
    listener.metrics(metrics);
    if (wanted) {
      wanted = false;
      askHistory();
    }
  });
  socket.on("split-update", (payload: unknown) => {
    const split = parseSplit(payload);
    if (split) listener.split(split);
  });
  socket.on("metrics-error", (payload: unknown) => {
    wanted = true;
    const { message, retry_in_ms } = (payload ?? {}) as { message?: unknown; retry_in_ms?: unknown };
    listener.happened({
      kind: "database-away",
      reason: typeof message === "string" ? message : "",
      retryInMs: typeof retry_in_ms === "number" ? retry_in_ms : 0,
      now: Date.now(),
    });
  });
  return socket;
}
