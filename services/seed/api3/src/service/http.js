// What every service answers: probes, metrics, CORS, and its errors as problems.

import { DbError, sorted } from "./db.js";
import { log } from "./log.js";
import { Problem } from "./problem.js";

/** How long /readyz may take; a kubelet's default patience is one second. */
const READY_WITHIN_MS = 900;

const CORS_METHODS = "GET, HEAD, POST, OPTIONS";
const CORS_REQUEST_HEADERS =
  "Content-Type, Idempotency-Key, Accept, X-Request-ID, traceparent, tracestate";
const CORS_EXPOSED = "Retry-After, Idempotency-Replayed, X-Request-ID";

/** The methods of a resource that is only read. */
export const READING = "GET, HEAD, OPTIONS";

/**
 * The first to see a request: counts its answer, says whether a page may have it,
 * and bids farewell when the service is on its way out. `routeOf` gives the route's
 * template for a path. Returns true when the request was a preflight and is answered.
 */
export function observe(service, routeOf, request, response) {
  const route = routeOf(pathOf(request));
  const { writeHead } = response;
  response.writeHead = (status, ...more) => {
    service.metrics.request(route, request.method, status);
    return writeHead.call(response, status, ...more);
  };
  response.setHeader("X-Service-Version", service.version);
  if (service.draining) response.setHeader("Connection", "close");
  const { origin } = request.headers;
  const preflight =
    request.method === "OPTIONS" &&
    origin !== undefined &&
    request.headers["access-control-request-method"] !== undefined;
  allow(service.config.corsOrigins, origin, preflight, response);
  if (preflight) {
    // Whether the page may go on is said by the headers alone; the path need not
    // know of it.
    response.writeHead(204).end();
  }
  return preflight;
}

/** Adds the CORS headers (Fetch standard, "CORS protocol"). */
export function allow(origins, origin, preflight, response) {
  if (origins === undefined) return;
  if (origins.includes("*")) {
    response.setHeader("Access-Control-Allow-Origin", "*");
  } else {
    // Caches must keep the answers to different pages apart.
    response.setHeader("Vary", "Origin");
    if (origin === undefined || !origins.includes(origin.toLowerCase())) return;
    response.setHeader("Access-Control-Allow-Origin", origin);
  }
  if (preflight) {
    response.setHeader("Access-Control-Allow-Methods", CORS_METHODS);
    response.setHeader("Access-Control-Allow-Headers", CORS_REQUEST_HEADERS);
    response.setHeader("Access-Control-Max-Age", "600");
  } else {
    response.setHeader("Access-Control-Expose-Headers", CORS_EXPOSED);
  }
}

/** Sets an Express application up as all services have it. */
export function prepare(app) {
  app.disable("x-powered-by");
  app.disable("etag");
  app.enable("strict routing");
  app.enable("case sensitive routing");
  return app;
}

/** A resource with its handlers by method; OPTIONS and 405 name `methods`. */
export function resource(app, path, methods, handlers) {
  for (const [method, handler] of Object.entries(handlers)) app[method](path, handler);
  app.options(path, (_, response) => {
    response.setHeader("Allow", methods);
    response.writeHead(204).end();
  });
  app.all(path, () => {
    throw Problem.methodNotAllowed(methods);
  });
}

/** /healthz, /readyz and /metrics; returns their routes. */
export function probes(app, service) {
  resource(app, "/healthz", READING, { get: (_, response) => text(response, 200, "ok\n") });
  resource(app, "/readyz", READING, {
    get: async (_, response) => {
      if (service.draining) return text(response, 503, "stopping\n");
      await service.db.check(READY_WITHIN_MS);
      return text(response, 200, "ok\n");
    },
  });
  resource(app, "/metrics", READING, {
    get: (_, response) => {
      response.setHeader("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
      response.end(service.metrics.render(service.config.apiName, service.db));
    },
  });
  return ["/healthz", "/readyz", "/metrics"];
}

/** Answers what nobody did, and errors; the last of an application's handlers. */
export function closing(app) {
  app.use((request) => {
    throw new Problem(404, `there is nothing at ${pathOf(request).slice(0, 200)}`);
  });
  // Express tells an error handler by its four parameters.
  app.use((error, _request, response, _next) => {
    if (response.headersSent) response.destroy();
    else problemOf(error).send(response);
  });
}

/** What the client is told of an error. */
export function problemOf(error) {
  if (error instanceof Problem) return error;
  const known = sorted(error);
  if (known instanceof DbError) {
    if (known.passing) return Problem.unavailable(`${known.message}; try again in a moment`);
    // The driver's words may name tables and values: for the log only.
    log.error("a statement failed", { error: known.cause?.message });
    return new Problem(500, known.message);
  }
  if (error.status >= 400 && error.status < 500) return new Problem(error.status, error.message);
  log.error("answering a request failed", { error });
  return new Problem(500, "answering this request failed");
}

/** Answers with JSON. */
export function json(response, status, value) {
  response.statusCode = status;
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(value));
}

function text(response, status, body) {
  response.statusCode = status;
  response.setHeader("Content-Type", "text/plain; charset=utf-8");
  response.end(body);
}

function pathOf(request) {
  return (request.originalUrl ?? request.url).split("?")[0];
}
