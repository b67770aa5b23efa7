// Connects with the real socket.io-client over one transport and prints, one JSON
// line each, what the black-box test compares: the transport in use, the first
// metrics-update, a split-update, an acknowledged request-metrics, and the first
// metrics-update whose newest record is the one that the test posts when it reads
// the line `ready`.
//
// node client.mjs URL polling|websocket MARK
import { io } from "socket.io-client";

const [url, transport, mark] = process.argv.slice(2);
const say = (event, payload) => console.log(JSON.stringify({ event, payload }));
const fail = (why) => {
  say("failed", String(why));
  process.exit(1);
};

setTimeout(() => fail("not over after 20 s"), 20_000).unref();

const socket = io(url, {
  transports: [transport],
  upgrade: false,
  reconnection: true,
  forceNew: true,
});
const seen = new Set();
const finish = () => {
  if (["marked", "split", "history"].every((one) => seen.has(one))) {
    say("transport", socket.io.engine.transport.name);
    socket.close();
    process.exit(0);
  }
};

socket.on("connect_error", (error) => console.error("connect_error", error.message));
socket.on("metrics-error", (error) => console.error("metrics-error", JSON.stringify(error)));
socket.on("metrics-update", (update) => {
  if (!seen.has("first")) {
    seen.add("first");
    say("metrics-update", update);
    say("ready", null);
    socket.timeout(5_000).emit("request-metrics", { limit: 3 }, (error, records) => {
      if (error) fail(`request-metrics: ${error.message}`);
      seen.add("history");
      say("history", records);
      finish();
    });
  }
  if (!seen.has("marked") && Number(update.record?.uso_ram) === Number(mark)) {
    seen.add("marked");
    say("marked", update);
    finish();
  }
});
socket.on("split-update", (split) => {
  if (!seen.has("split")) {
    seen.add("split");
    say("split-update", split);
    finish();
  }
});
