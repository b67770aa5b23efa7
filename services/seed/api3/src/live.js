// Telling the pages over Socket.IO what is new.

import { Server } from "socket.io";

import { log } from "./service/log.js";
import { readPage } from "./service/read.js";
import { WINDOW_S } from "./tally.js";

/** How often the database is looked at while somebody looks on. */
const LOOK_EVERY_MS = 75;

/** `metrics-update` comes no more often than this. */
const UPDATE_AT_MOST_MS = 250;

/** It comes at rest as well, and so does `split-update`. */
const AT_REST_MS = 1000;

/** The first and the longest pause before the database is tried again. */
const RETRY_FIRST_MS = 250;
const RETRY_LONGEST_MS = 2000;

/** Most records of one `request-metrics`, and how many without a number. */
const MAX_HISTORY = 500;
const HISTORY = 100;

/** Pages send requests of a few bytes. */
const MAX_MESSAGE = 64 << 10;

/** Socket.IO on its usual path, and what happens when a page comes. */
export function attach(server, service, feed) {
  const io = new Server(server, {
    maxHttpBufferSize: MAX_MESSAGE,
    serveClient: false,
  });
  io.on("connection", (socket) => {
    socket.on("request-metrics", (...given) => history(service, socket, given));
    greet(feed, socket);
  });
  broadcast(io, feed);
  return io;
}

function metricsError(error, retryInMs) {
  return { message: error.message, retry_in_ms: retryInMs };
}

/** What a page is told at once. */
async function greet(feed, socket) {
  try {
    const snapshot = await feed.snapshot(LOOK_EVERY_MS);
    socket.emit("metrics-update", snapshot.update);
    socket.emit("split-update", snapshot.split(WINDOW_S));
  } catch (error) {
    socket.emit("metrics-error", metricsError(error, RETRY_FIRST_MS));
  }
}

/** Answers `request-metrics` with the newest records, newest first; with `{error}`
 * when they can't be had, which `metrics-error` says as well. */
async function history(service, socket, given) {
  const last = given.at(-1);
  const acknowledge = typeof last === "function" ? last : () => {};
  const wanted = given[0]?.limit ?? HISTORY;
  if (!Number.isSafeInteger(wanted) || wanted < 1) {
    const message = `limit is ${JSON.stringify(wanted)}; expected 1 to ${MAX_HISTORY}`;
    acknowledge({ error: { message } });
    return;
  }
  try {
    const limit = Math.min(wanted, MAX_HISTORY);
    const { records } = await readPage(service.db, { limit, after: null });
    acknowledge(records);
  } catch (error) {
    const told = metricsError(error, RETRY_FIRST_MS);
    socket.emit("metrics-error", told);
    acknowledge({ error: told });
  }
}

/** Looks at the database while somebody looks on, and tells all of them. */
async function broadcast(io, feed) {
  const told = new Told();
  let retryInMs = RETRY_FIRST_MS;
  for (;;) {
    await somebody(io);
    let pauseMs = LOOK_EVERY_MS;
    try {
      const snapshot = await feed.snapshot(0);
      retryInMs = RETRY_FIRST_MS;
      const now = performance.now();
      if (told.updateIsDue(snapshot.version, now)) io.emit("metrics-update", snapshot.update);
      if (told.splitIsDue(now)) io.emit("split-update", snapshot.split(WINDOW_S));
    } catch (error) {
      log.debug("the pages are told of an outage", { error: error.message });
      io.emit("metrics-error", metricsError(error, retryInMs));
      pauseMs = retryInMs;
      retryInMs = Math.min(retryInMs * 2, RETRY_LONGEST_MS);
    }
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

/** Waits until somebody is there. */
function somebody(io) {
  if (io.of("/").sockets.size > 0) return undefined;
  return new Promise((resolve) => io.once("connection", resolve));
}

/** When all were told what. */
export class Told {
  #updatedMs = -Infinity;
  #version;
  #splitMs = -Infinity;

  /** Whether `metrics-update` is due, which is then taken as sent. */
  updateIsDue(version, nowMs) {
    const pause = version === this.#version ? AT_REST_MS : UPDATE_AT_MOST_MS;
    if (nowMs < this.#updatedMs + pause) return false;
    this.#updatedMs = nowMs;
    this.#version = version;
    return true;
  }

  splitIsDue(nowMs) {
    if (nowMs < this.#splitMs + AT_REST_MS) return false;
    this.#splitMs = nowMs;
    return true;
  }
}
