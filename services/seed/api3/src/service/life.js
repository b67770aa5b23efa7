// A service's life in a pod: it answers until SIGTERM, then lets go without
// dropping a request.

import { createServer } from "node:http";

import { ConfigError, readConfig } from "./config.js";
import { Database } from "./db.js";
import { log, setLevel } from "./log.js";
import { Metrics } from "./metrics.js";

/** After SIGTERM the service still accepts for this long. Kubernetes removes a pod
 * from the Service and sends SIGTERM at the same moment, so some requests are
 * still on their way here; a refused connection would be a lost one. Each answer
 * meanwhile says `Connection: close`, which empties the proxies' pools of kept
 * connections in the orderly way. */
const LINGER_MS = 250;

/** How long requests in flight may take after that. */
const GRACE_MS = 15_000;

/** How long a connection may be silent. Longer than any load balancer keeps one
 * (Google's: 600 s), because the side that closes first must be the one that sends
 * requests: else a request meets a closing connection. */
const SILENCE_MS = 620_000;

/** What the handlers of a service share. */
export function createService(config, version) {
  return {
    config,
    /** What answers say of the build they came from. */
    version,
    db: new Database(config.database),
    metrics: new Metrics(),
    /** True from SIGTERM on. */
    draining: false,
  };
}

/**
 * Runs a service until SIGTERM, then ends the process: exit code 0 after an
 * orderly end, 1 when it can't start.
 *
 * @param {{apiName: string, port: number, version: string}} defaults
 * @param {(service: object, server: import("node:http").Server) => {farewell?: () => void}} build
 *   puts the application on the server; `farewell` tells long-lived connections to go
 */
export async function run(defaults, build) {
  const config = configOr1(defaults);
  setLevel(config.logLevel);
  const service = createService(config, defaults.version);
  const server = createServer();
  server.keepAliveTimeout = SILENCE_MS;
  const { farewell } = build(service, server) ?? {};
  // Last, as what takes the server over may take away who listens already.
  const connections = watch(server);
  const stop = new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, resolve);
  });
  await listening(server, config.port, defaults.apiName);
  log.info("listening", { api: config.apiName, port: config.port });

  await stop;
  log.info("stopping");
  service.draining = true;
  await pause(LINGER_MS);
  // Right after the event loop has accepted whoever waited: who is not accepted yet
  // when a listener closes is reset.
  await new Promise((resolve) => setImmediate(resolve));
  const closed = new Promise((resolve) => server.close(resolve));
  farewell?.();
  // What was accepted last has its request still on the way.
  await pause(LINGER_MS);
  connections.finish();
  if ((await Promise.race([closed, pause(GRACE_MS).then(() => "late")])) === "late") {
    log.warn("requests were still in flight after the grace period", { grace_ms: GRACE_MS });
  }
  await service.db.close(2000);
  process.exit(0);
}

function configOr1(defaults) {
  try {
    return readConfig(defaults);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${defaults.apiName}: ${error.message}\n`);
    return process.exit(1);
  }
}

function listening(server, port, name) {
  return new Promise((resolve) => {
    server.once("error", (error) => {
      process.stderr.write(
        `${name}: can't listen on port ${port}; another process may hold it, ` +
          `or PORT may name another: ${error.message}\n`,
      );
      process.exit(1);
    });
    server.listen({ host: "0.0.0.0", port, backlog: 2048 }, resolve);
  });
}

/**
 * Knows which connections have a request in flight. Node.js' own
 * closeIdleConnections does not count one on which nothing came yet.
 */
export function watch(server) {
  const busy = new Map();
  let finishing = false;
  server.on("connection", (socket) => {
    busy.set(socket, 0);
    socket.once("close", () => busy.delete(socket));
  });
  server.on("request", ({ socket }, response) => {
    busy.set(socket, (busy.get(socket) ?? 0) + 1);
    response.once("close", () => {
      const left = (busy.get(socket) ?? 1) - 1;
      if (busy.has(socket)) busy.set(socket, left);
      if (finishing && left === 0) socket.destroySoon();
    });
  });
  // What an upgraded connection carries is its new owner's affair, but not for how long.
  const upgraded = new Set();
  server.on("upgrade", (_, socket) => {
    busy.delete(socket);
    upgraded.add(socket);
    socket.once("close", () => upgraded.delete(socket));
  });
  return {
    /** Ends what is idle or said goodbye at once, and what is busy after its answer.
     * Not by `end()`, which leaves the last word to a peer that may never say it. */
    finish() {
      finishing = true;
      for (const [socket, requests] of busy) if (requests === 0) socket.destroySoon();
      for (const socket of upgraded) socket.destroySoon();
    },
  };
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
