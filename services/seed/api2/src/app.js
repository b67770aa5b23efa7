// `POST /api` and `GET /api/records`.

import { createHash } from "node:crypto";

import express from "express";

import { readJson } from "./body.js";
import { parseBody } from "./record.js";
import { DbError } from "./service/db.js";
import { closing, json, observe, prepare, probes, READING, resource } from "./service/http.js";
import { Problem } from "./service/problem.js";
import { pageOf, queryOf, readPage } from "./service/read.js";
import { insert, KeyLocks, KeyReused, parseKey } from "./write.js";

/** Most records of one page. */
const MAX_PAGE = 1000;

/** Puts the application on the server. */
export function build(service, server) {
  const app = prepare(express());
  const locks = new KeyLocks();
  const routes = ["/api", "/api/records"];
  app.use((request, response, next) => {
    const routeOf = (path) => (routes.includes(path) ? path : "other");
    if (!observe(service, routeOf, request, response)) next();
  });
  resource(app, "/api", "POST, OPTIONS", {
    post: (request, response) => accept(service, locks, request, response),
  });
  resource(app, "/api/records", READING, {
    get: async (request, response) => {
      json(response, 200, await readPage(service.db, pageOf(queryOf(request), MAX_PAGE)));
    },
  });
  routes.push(...probes(app, service));
  closing(app);
  server.on("request", app);
  // Whether the body is wanted is decided where it is read.
  server.on("checkContinue", (request, response) => server.emit("request", request, response));
}

async function accept(service, locks, request, response) {
  const key = idempotencyKey(request);
  const body = await readJson(request, response);
  const { records, unknown } = parseBody(body);
  const keyed = key && { key, bodySha256: createHash("sha256").update(body).digest("hex") };
  const started = performance.now();
  let receipt;
  try {
    receipt = await insert(service.db, locks, service.config.apiName, records, keyed);
  } catch (error) {
    throw writeProblem(error);
  }
  if (receipt.replayed) response.setHeader("Idempotency-Replayed", "true");
  else service.metrics.insert(receipt.ids.length, (performance.now() - started) / 1000);
  const warnings = unknown.map((field) => ({
    field,
    message: "is no field of a record and was ignored",
  }));
  const created = { ids: receipt.ids, api: receipt.api };
  json(response, 201, warnings.length > 0 ? { ...created, warnings } : created);
}

function idempotencyKey(request) {
  const values = request.headersDistinct["idempotency-key"];
  if (values === undefined) return undefined;
  const key = parseKey(values[0]);
  if (values.length === 1 && key !== undefined) return key;
  const message =
    values.length > 1 ? "is there twice" : "expected 1 to 64 printable ASCII characters";
  throw new Problem(422, "the Idempotency-Key can't be used", [
    { field: "Idempotency-Key", message },
  ]);
}

function writeProblem(error) {
  if (error instanceof KeyReused) {
    return new Problem(422, error.message, [
      { field: "Idempotency-Key", message: "was used with another body" },
    ]);
  }
  if (error instanceof DbError && error.passing) {
    return Problem.unavailable(
      `${error.message}; try again in a moment, with the same Idempotency-Key if there was one`,
    );
  }
  return error;
}
