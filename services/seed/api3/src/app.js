// `/api3/records` and `/api3/stats`, and Socket.IO beside them.

import express from "express";

import { Feed } from "./feed.js";
import { attach } from "./live.js";
import { closing, json, observe, prepare, probes, READING, resource } from "./service/http.js";
import { Problem } from "./service/problem.js";
import { pageOf, queryOf, readPage, whole } from "./service/read.js";
import { WINDOW_S } from "./tally.js";

/** Most records of one page. */
const MAX_PAGE = 500;

/** The longest window of the statistics: a day. */
const MAX_WINDOW_S = 86_400;

const SOCKET_IO = "/socket.io";

/** Puts the application on the server; `farewell` tells the pages to go. */
export function build(service, server) {
  const feed = new Feed(service.db);
  const app = prepare(express());
  resource(app, "/api3/records", READING, {
    get: async (request, response) => {
      json(response, 200, await readPage(service.db, pageOf(queryOf(request), MAX_PAGE)));
    },
  });
  resource(app, "/api3/stats", READING, {
    get: async (request, response) => {
      const { snapshot, split } = await feed.splitOf(windowOf(queryOf(request)));
      const { total, counts } = snapshot.update;
      json(response, 200, { total, counts, ...split });
    },
  });
  const routes = ["/api3/records", "/api3/stats", ...probes(app, service)];
  closing(app);

  const routeOf = (path) => {
    if (path.startsWith(SOCKET_IO)) return SOCKET_IO;
    return routes.includes(path) ? path : "other";
  };
  server.on("request", app);
  const io = attach(server, service, feed);
  // Socket.IO has put itself before the application; the observer comes before both.
  const [handle] = server.listeners("request");
  server.removeListener("request", handle);
  server.on("request", (request, response) => {
    if (!observe(service, routeOf, request, response)) handle(request, response);
  });
  // Its promise is for the server's last connection, which is not for it to wait for.
  return { farewell: () => void io.close() };
}

function windowOf(query) {
  if (!query.has("window_s")) return WINDOW_S;
  const seconds = Number(whole(query.get("window_s")) ?? 0);
  if (seconds >= 1 && seconds <= MAX_WINDOW_S) return seconds;
  throw new Problem(422, "the query has bad parameters", [
    {
      field: "window_s",
      message: `expected a whole number of seconds from 1 to ${MAX_WINDOW_S}`,
    },
  ]);
}
