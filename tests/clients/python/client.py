"""The unmodified python-socketio client over one transport.

    python client.py URL polling|websocket MARK

Prints the same JSON lines as the Node client beside it; see there.
"""

import json
import sys
import threading

import socketio

url, transport, mark = sys.argv[1:4]
client = socketio.Client(reconnection=True)
lock = threading.Lock()
seen = set()
done = threading.Event()


def say(event, payload):
    with lock:
        print(json.dumps({"event": event, "payload": payload}), flush=True)


def note(what):
    seen.add(what)
    if {"marked", "split", "history"} <= seen:
        done.set()


def history(*records):
    say("history", records[0] if len(records) == 1 else list(records))
    note("history")


@client.on("metrics-update")
def metrics_update(update):
    if "first" not in seen:
        note("first")
        say("metrics-update", update)
        say("ready", None)
        client.emit("request-metrics", {"limit": 3}, callback=history)
    ram = (update.get("record") or {}).get("uso_ram")
    if "marked" not in seen and ram is not None and float(ram) == float(mark):
        say("marked", update)
        note("marked")


@client.on("split-update")
def split_update(split):
    if "split" not in seen:
        say("split-update", split)
        note("split")


@client.on("metrics-error")
def metrics_error(error):
    print("metrics-error", error, file=sys.stderr)


client.connect(url, transports=[transport], wait_timeout=10)
ok = done.wait(20)
say("transport", client.transport())
client.disconnect()
if not ok:
    say("failed", "not over after 20 s, seen: " + " ".join(sorted(seen)))
    sys.exit(1)
