import json
import os
import threading
import time

from .. import components, load, samples, servers
from ..lab import post, put, wait_for_200
from ..table import middle, ratio, table

TITLE = "Beside an extension that never ends in time"
RATE = 2000
# Calls a second that loop until their deadline.
SLOW_RATE = 10
TENANT = "bench"
DECIDE = "/api/v1/decide"


def run(lab):
    heir = servers.store(lab, 1)
    folder = components.register(
        lab,
        {
            "id": "loops",
            "type": "validator",
            "component": "misbehaving-validator",
            "capabilities": ["clock", "random", "metrics"],
            "timeout_ms": 10,
            "config": {"do": "loop"},
        },
        {"id": "guard", "type": "validator", "component": "pii-guard"},
    )
    put(heir.url + samples.path(TENANT, "plain"), samples.two_providers())
    put(heir.url + samples.path(TENANT, "guarded"), samples.two_providers(validators=[{"id": "guard"}]))
    slow = [{"id": "loops", "on_fail": "ignore"}]
    put(heir.url + samples.path(TENANT, "slow"), samples.two_providers(validators=slow))
    sidecar = servers.sidecar(lab, heir, more={"extensions_dir": str(folder)})
    lookup = samples.path(TENANT, "plain")
    wait_for_200(sidecar.process, sidecar.url + samples.path(TENANT, "slow"))
    rows = [
        ("lookup", lookup, None),
        ("decision without extensions", DECIDE, samples.decide_request(TENANT, "plain")),
        ("decision with pii-guard", DECIDE, samples.decide_request(TENANT, "guarded")),
    ]
    for _, path, body in rows:
        load.steady(sidecar, path, 1, RATE, body=body)
    alone, beside = [[] for _ in rows], [[] for _ in rows]
    for turn in range(lab.options.rounds):
        for step in range(len(rows)):
            row = (turn + step) % len(rows)
            _, path, body = rows[row]
            alone[row].append(load.steady(sidecar, path, lab.options.seconds, RATE, body=body))
            with Slow(sidecar):
                beside[row].append(load.steady(sidecar, path, lab.options.seconds, RATE, body=body))

    def line(row):
        p99 = [one.p99 for one in beside[row]]
        return [
            rows[row][0],
            middle([one.p50 for one in alone[row]], 0),
            middle([one.p99 for one in alone[row]], 0),
            middle([one.p50 for one in beside[row]], 0),
            middle(p99, 0),
            ratio(p99, [one.p99 for one in alone[row]]),
        ]

    head = ["request", "p50 alone, µs", "p99 alone, µs", "p50 beside, µs", "p99 beside, µs", "ratio of p99"]
    return (
        f"{RATE:,} requests/s (`benches/steady.rs`), alone and beside {SLOW_RATE} decisions a second whose extension loops into\n"
        "its deadline of 10 ms, of the same sidecar with one worker.\n\n"
        + table(head, [line(row) for row in range(len(rows))])
    )


class Slow:
    """Asks for slow decisions for as long as it is open."""

    def __init__(self, sidecar):
        self.url = sidecar.url + DECIDE
        self.body = json.dumps(json.loads(samples.decide_request(TENANT, "slow")))
        self.ended = threading.Event()
        self.threads = []

    def ask(self):
        stand_back()
        while not self.ended.wait(1 / SLOW_RATE):
            # A thread of its own, which inherits its policy, so that a late answer delays no further question.
            thread = threading.Thread(target=post, args=(self.url, self.body))
            thread.start()
            self.threads.append(thread)

    def __enter__(self):
        self.threads = [threading.Thread(target=self.ask)]
        self.threads[0].start()
        time.sleep(0.5)

    def __exit__(self, *_):
        self.ended.set()
        for thread in list(self.threads):
            thread.join()


def stand_back():
    """Of this thread: what it costs to ask is not to be measured as if it were the sidecar's."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
