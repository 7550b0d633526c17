import os
import threading
import time

from .. import components, load, samples, servers
from ..lab import post, put, wait_for_200
from ..table import middle, ratio, table

TITLE = "Beside an extension that behaves badly"
RATE = 2000
VICTIM, CULPRIT = "victim", "culprit"
DECIDE = "/api/v1/decide"

# What it does, how it is called, its configuration, and how often it is asked a second or on how many connections at once.
GUESTS = [
    ("loops into its deadline of 10 ms", "validators", {"do": "loop"}, {"timeout_ms": 10}, 10, None),
    ("gives costly legal answers, 300 KB of tiny values", "pre", {"do": "many-items", "bytes": 300_000}, {"timeout_ms": 1000}, 10, None),
    ("takes memory until its limit", "validators", {"do": "allocate"}, {"timeout_ms": 100}, 10, None),
    ("floods the log", "validators", {"do": "flood-log"}, {"timeout_ms": 10}, 10, None),
    ("takes 20 ms, asked on 40 connections at once", "validators", {"do": "spin", "iterations": 20_000_000}, {"timeout_ms": 1000}, None, 40),
]


def run(lab):
    heir = servers.store(lab, 1)
    records = [
        {
            "id": f"bad-{number}",
            "type": "validator" if where == "validators" else "pre",
            "component": "misbehaving-validator" if where == "validators" else "misbehaving-pre-processor",
            "capabilities": ["clock", "random", "metrics"],
            "config": config,
            **more,
        }
        for number, (_, where, config, more, _, _) in enumerate(GUESTS)
    ]
    folder = components.register(lab, {"id": "guard", "type": "validator", "component": "pii-guard"}, *records)
    put(heir.url + samples.path(VICTIM, "guarded"), samples.two_providers(validators=[{"id": "guard"}]))
    for number, (_, where, *_) in enumerate(GUESTS):
        tolerant = {"on_fail": "ignore"} if where == "validators" else {"mode": "optional"}
        put(heir.url + samples.path(CULPRIT, f"bad-{number}"), samples.two_providers(**{where: [{"id": f"bad-{number}", **tolerant}]}))
    sidecar = servers.sidecar(lab, heir, more={"extensions_dir": str(folder)})
    wait_for_200(sidecar.process, sidecar.url + samples.path(CULPRIT, f"bad-{len(GUESTS) - 1}"))
    components.wait_until_callable(sidecar)
    lookup = samples.path(VICTIM, "guarded")
    victims = [("lookup", lookup, None), ("decision", DECIDE, samples.decide_request(VICTIM, "guarded"))]
    for _, path, body in victims:
        load.steady(sidecar, path, 1, RATE, body=body)

    results = {}
    for turn in range(lab.options.rounds):
        for step in range(len(GUESTS)):
            number = (turn + step) % len(GUESTS)
            for what, path, body in victims:
                alone, beside = results.setdefault((number, what), ([], []))
                alone.append(load.steady(sidecar, path, lab.options.seconds, RATE, body=body))
                with Bad(sidecar, number):
                    beside.append(load.steady(sidecar, path, lab.options.seconds, RATE, body=body))

    rows = []
    for (number, what), (alone, beside) in sorted(results.items()):
        p99 = [one.p99 for one in beside]
        rows.append(
            [
                GUESTS[number][0],
                what,
                middle([one.p50 for one in alone], 0),
                middle([one.p99 for one in alone], 0),
                middle([one.p50 for one in beside], 0),
                middle(p99, 0),
                ratio(p99, [one.p99 for one in alone]),
            ]
        )
    head = ["another tenant's extension", "request", "p50 alone, µs", "p99 alone, µs", "p50 beside, µs", "p99 beside, µs", "ratio of p99"]
    return (
        f"{RATE:,} requests/s of one tenant (`benches/steady.rs`), lookups or decisions with pii-guard, alone and beside another\n"
        "tenant's decisions whose extension behaves badly: ten a second where nothing else is said, of the same sidecar with\n"
        "one worker.\n\n" + table(head, rows)
    )


class Bad:
    """Asks for decisions by the bad guest for as long as it is open."""

    def __init__(self, sidecar, number):
        self.url = sidecar.url + DECIDE
        self.body = samples.decide_request(CULPRIT, f"bad-{number}")
        *_, self.rate, self.connections = GUESTS[number]
        self.ended = threading.Event()
        self.threads = []

    def at_a_rate(self):
        stand_back()
        while not self.ended.wait(1 / self.rate):
            # A thread of its own, which inherits its policy, so that a late answer delays no further question.
            thread = threading.Thread(target=post, args=(self.url, self.body))
            thread.start()
            self.threads.append(thread)

    def one_after_the_other(self):
        stand_back()
        while not self.ended.is_set():
            post(self.url, self.body)

    def __enter__(self):
        if self.rate:
            self.threads = [threading.Thread(target=self.at_a_rate)]
        else:
            self.threads = [threading.Thread(target=self.one_after_the_other) for _ in range(self.connections)]
        for thread in list(self.threads):
            thread.start()
        time.sleep(0.5)

    def __exit__(self, *_):
        self.ended.set()
        for thread in list(self.threads):
            thread.join()


def stand_back():
    """Of this thread: what it costs to ask is not to be measured as if it were the sidecar's."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
