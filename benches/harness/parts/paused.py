import signal
import time

from .. import load, samples, servers
from ..lab import wait_for_200
from ..table import middle, ratio, table

TITLE = "Lookups while the store hangs"
POLICIES = 1000
RATE = 5000
REFRESH = {"interval_ms": 1000, "stale_after_ms": 3000}
# Longer than REFRESH allows for, so that the sidecar has noticed.
NOTICE_S = 5


def run(lab):
    path = samples.last_path(POLICIES)
    heir = servers.store(lab, POLICIES)
    sidecar = servers.sidecar(lab, heir, refresh=REFRESH)

    load.oha_open(sidecar, path, 1, RATE)
    before, paused, after = [], [], []
    for _ in range(lab.options.rounds):
        before.append(load.oha_open(sidecar, path, lab.options.seconds, RATE))
        heir.process.signal(signal.SIGSTOP)
        try:
            time.sleep(NOTICE_S)
            paused.append(load.oha_open(sidecar, path, lab.options.seconds, RATE))
        finally:
            heir.process.signal(signal.SIGCONT)
        wait_for_200(heir.process, heir.url + "/health")
        after.append(load.oha_open(sidecar, path, lab.options.seconds, RATE))

    def line(name, rounds):
        return [
            name,
            middle([one.p50 for one in rounds], 0),
            middle([one.p99 for one in rounds], 0),
            middle([one.p999 for one in rounds], 0),
            ratio([one.p99 for one in rounds], [one.p99 for one in before]) if rounds is not before else "1",
        ]

    head = ["store", "p50, µs", "p99, µs", "p99.9, µs", "ratio of p99"]
    return (
        f"{RATE:,} requests/s (open loop, oha). The store is stopped with SIGSTOP, so that it accepts connections and\n"
        "never answers, which is worse than a store that is gone.\n\n"
        + table(head, [line("up", before), line("hanging", paused), line("up again", after)])
    )
