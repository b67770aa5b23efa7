#!/usr/bin/env python3
"""trafico_salida: the traffic of `devenv traffic`, with Locust.

For those who know Locust and want its habits: users, ramps, its web page. Everybody else needs
nothing but `devenv traffic`, which also keeps a rate whatever the answers do (an open loop); Locust's
users wait for their answers, so a slow server is asked less.

    python3 -m venv .venv && .venv/bin/pip install 'locust>=2.20'
    .venv/bin/locust -f services/traffic/trafico_salida.py --host "$(devenv url ingress)"

and open http://localhost:8089; or without the page, 32 users for one minute:

    .venv/bin/locust -f services/traffic/trafico_salida.py --host "$(devenv url ingress)" \
        --headless --users 32 --spawn-rate 32 --run-time 60s

Options of ours, beside Locust's own:
    --records FILE      send the records of a JSON file (an array, or one a line) in turn, as they
                        stand, instead of this machine's
    --per-user RATE     requests a second that each user aims at (default 2, 0: as fast as answered)
    --requests N        stop after so many requests, all users together
    --preflight         an OPTIONS before each POST, as a browser does
    --idempotency       a key of its own with each request

En español: envía a `POST /api` registros reales de esta máquina, leídos de /proc, con Locust, y dice al
final cuántos recibió cada API.

Each request is one record of the reference application: RAM in MB, percentages from 0 to 100, the
processes by state, and `hora`, the local wall clock. They come from Linux's /proc (proc(5)).
"""

import itertools
import json
import logging
import os
import threading
import time
import uuid
from collections import Counter
from datetime import datetime

import gevent
from locust import FastHttpUser, constant_throughput, events, task
from locust.exception import StopUser

log = logging.getLogger("trafico_salida")

# CPU use over less time than this is mostly noise; users in between send the latest record.
SAMPLE_EVERY_S = 0.25


def cpu_times(root="/proc"):
    """Busy and all CPU time since the start, in clock ticks."""
    with open(f"{root}/stat", encoding="ascii") as stat:
        for line in stat:
            if line.startswith("cpu "):
                # user nice system idle iowait irq softirq steal; guests are in user and nice already.
                times = [int(word) for word in line.split()[1:9]]
                return sum(times) - times[3] - times[4], sum(times)
    raise ValueError(f"{root}/stat has no line `cpu`")


def memory_kb(root="/proc"):
    """All memory and what programs could still take, in kB."""
    fields = {}
    with open(f"{root}/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            name, _, rest = line.partition(":")
            fields[name] = int(rest.split()[0])
    # MemAvailable is there since Linux 3.14.
    free = fields.get("MemAvailable", fields["MemFree"] + fields["Buffers"] + fields["Cached"])
    return fields["MemTotal"], min(free, fields["MemTotal"])


def process_states(root="/proc"):
    """How many processes are in each state; those that end meanwhile do not count."""
    states = Counter()
    for name in os.listdir(root):
        if not name.isdigit():
            continue
        try:
            with open(f"{root}/{name}/stat", "rb") as stat:
                # The command before it may hold spaces and parentheses of its own.
                state = stat.read().rpartition(b")")[2].split()[0].decode("ascii")
        except (OSError, IndexError):
            continue
        states[state] += 1
    return states


def make_record(before, after, memory, states):
    """The twelve fields of the contract from two readings of the CPU, memory and processes."""
    busy, everything = after[0] - before[0], after[1] - before[1]
    cpu = round(min(max(busy / everything, 0.0), 1.0) * 100, 2) if everything > 0 else 0.0
    total, free = (kb / 1024 for kb in memory)
    return {
        "total_ram": round(total, 2),
        "ram_libre": round(free, 2),
        "uso_ram": round(total - free, 2),
        "porcentaje_ram": round((total - free) / total * 100, 2),
        "porcentaje_cpu_uso": cpu,
        "porcentaje_cpu_libre": round(100 - cpu, 2),
        "procesos_corriendo": states["R"],
        "total_procesos": sum(states.values()),
        "procesos_durmiendo": states["S"] + states["D"] + states["I"],
        "procesos_zombie": states["Z"],
        "procesos_parados": states["T"] + states["t"],
        "hora": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
    }


class Machine:
    """Records of this machine, each at most a quarter of a second old."""

    def __init__(self):
        self._lock = threading.Lock()
        self._before = cpu_times()
        time.sleep(SAMPLE_EVERY_S)
        self._look()

    def _look(self):
        now = cpu_times()
        self._latest = make_record(self._before, now, memory_kb(), process_states())
        self._before = now
        self._taken = time.monotonic()

    def next(self):
        with self._lock:
            if time.monotonic() - self._taken >= SAMPLE_EVERY_S:
                self._look()
            return self._latest


class File:
    """The records of a file, in turn."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            records = json.loads(text)
        except ValueError:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        records = records if isinstance(records, list) else [records]
        if not records or not all(isinstance(record, (dict, list)) for record in records):
            raise ValueError(f"{path}: expected an array of records, or one record a line")
        self._records = itertools.cycle(records)

    def next(self):
        return next(self._records)


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument("--records", metavar="FILE", default="", help="JSON file of records to send instead of this machine's")
    parser.add_argument("--per-user", metavar="RATE", type=float, default=2.0, help="requests a second that each user aims at; 0: as fast as answered")
    parser.add_argument("--requests", metavar="N", type=int, default=0, help="stop after so many requests, all users together; 0: never")
    parser.add_argument("--preflight", action="store_true", help="an OPTIONS before each POST, as a browser does")
    parser.add_argument("--idempotency", action="store_true", help="an Idempotency-Key of its own with each request")


taken_by = Counter()


@events.test_start.add_listener
def choose_source(environment, **_):
    taken_by.clear()
    options = environment.parsed_options
    environment.due = itertools.count(1)
    environment.records = File(options.records) if options.records else Machine()


@events.test_stop.add_listener
def say_the_split(environment, **_):
    total = sum(taken_by.values())
    for api, n in sorted(taken_by.items()):
        log.info("%s took %d of %d (%.2f %%)", api, n, total, 100 * n / total)


class Trafico(FastHttpUser):
    """Sends one record after the other, and waits for each answer."""

    def wait_time(self):
        rate = self.environment.parsed_options.per_user
        return constant_throughput(rate)(self) if rate > 0 else 0

    @task
    def send(self):
        options = self.environment.parsed_options
        if options.requests:
            due = next(self.environment.due)
            if due == options.requests + 1:
                # Not from here: it ends this user too. What is under way has --stop-timeout.
                gevent.spawn(self.environment.runner.quit)
            if due > options.requests:
                raise StopUser()
        if options.preflight:
            asks = {
                "Origin": "http://localhost",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type",
            }
            if not self.client.options("/api", headers=asks).ok:
                return
        headers = {"Idempotency-Key": str(uuid.uuid4())} if options.idempotency else {}
        record = self.environment.records.next()
        with self.client.post("/api", json=record, headers=headers, catch_response=True) as answer:
            if answer.status_code == 201:
                taken_by[answer.json().get("api", "unknown")] += 1
                answer.success()
            else:
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
