// Reading a request's JSON body within bounds.

import { Problem } from "./service/problem.js";

/** Largest body, bytes: nginx's `proxy-body-size` of 1m lets the same through. */
export const MAX_BODY = 1 << 20;

/** How much of a body that is too large is still taken in, and for how long, so that
 * a client that only listens after sending reads the 413 and not a reset. */
const DRAIN_UP_TO = 16 << 20;
const DRAIN_WITHIN_MS = 5000;

/** How long a body may take to arrive. */
const BODY_WITHIN_MS = 30_000;

/** What is not read to its end can't be followed by another request. */
const CLOSE = { Connection: "close" };

/**
 * The whole body of a request that says it is JSON.
 *
 * @throws {Problem} 415, 413, 408, or 400 when the client broke off
 */
export async function readJson(request, response) {
  // With `Expect: 100-continue` the body has not been sent yet, and whoever asks for
  // it says so.
  const expects = request.headers.expect !== undefined;
  if (!isJson(request.headers["content-type"])) {
    throw new Problem(
      415,
      "expected Content-Type: application/json in UTF-8",
      [],
      expects ? CLOSE : {},
    );
  }
  if (Number(request.headers["content-length"]) > MAX_BODY) {
    if (!expects) await discard(request);
    throw tooLarge();
  }
  if (expects) response.writeContinue();
  return collect(request);
}

/** Collects a body whose length is not known beforehand, or is and is small. */
async function collect(request) {
  const chunks = [];
  let length = 0;
  const outcome = await reading(request, BODY_WITHIN_MS, (chunk) => {
    length += chunk.length;
    if (length > MAX_BODY) return false;
    chunks.push(chunk);
    return true;
  });
  switch (outcome) {
    case "whole":
      return Buffer.concat(chunks, length);
    case "enough":
      await discard(request);
      throw tooLarge();
    case "late":
      throw new Problem(408, `the body did not arrive within ${BODY_WITHIN_MS}ms`, [], CLOSE);
    default:
      throw new Problem(400, "the body broke off", [], CLOSE);
  }
}

async function discard(request) {
  let seen = 0;
  await reading(request, DRAIN_WITHIN_MS, (chunk) => (seen += chunk.length) <= DRAIN_UP_TO);
}

/** Hands over chunks until `take` has enough of them; says how it ended. */
function reading(request, limitMs, take) {
  return new Promise((resolve) => {
    const end = (outcome) => {
      clearTimeout(timer);
      request.pause();
      for (const [event, listener] of listeners) request.off(event, listener);
      resolve(outcome);
    };
    const timer = setTimeout(() => end("late"), limitMs);
    const listeners = [
      ["data", (chunk) => take(chunk) || end("enough")],
      ["end", () => end("whole")],
      ["close", () => end(request.complete ? "whole" : "broken")],
      // An aborted request is an error as well as closed.
      ["error", () => end("broken")],
    ];
    for (const [event, listener] of listeners) request.on(event, listener);
    request.resume();
  });
}

function tooLarge() {
  return new Problem(
    413,
    `the body is larger than ${MAX_BODY} bytes; send fewer records at a time`,
    [],
    CLOSE,
  );
}

/** `application/json` or `application/*+json`; JSON is UTF-8. */
export function isJson(value = "") {
  const [media, ...parameters] = value.toLowerCase().split(";").map((part) => part.trim());
  return (
    /^application\/(json|.*\+json)$/.test(media) &&
    parameters.every((parameter) => {
      const [name, charset] = parameter.split(/=(.*)/s);
      if (name !== "charset" || charset === undefined) return true;
      return ["utf-8", "utf8", "us-ascii"].includes(charset.replace(/^"+|"+$/g, ""));
    })
  );
}
