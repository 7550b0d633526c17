import threading
import urllib.request

from .. import load, samples, servers
from ..lab import LabError, get, wait_for_200
from ..table import middle, ratio, table

TITLE = "Lookups while snapshots are replaced"
RATE = 2000
# A store of this level offers no changes, so that one changed policy makes the sidecar fetch and publish all.
LEVEL = "snapshot"
REFRESH = {"interval_ms": 1000, "stale_after_ms": 60000}
CHANGE_EVERY_S = 1


def run(lab):
    count = 10_000 if lab.options.quick else 100_000
    path = samples.last_path(count)
    heir = servers.store(lab, count, level=LEVEL)
    sidecar = servers.sidecar(lab, heir, refresh=REFRESH)
    wait_for_200(sidecar.process, sidecar.url + path)
    seconds = max(10, 2 * lab.options.seconds)

    load.oha_open(sidecar, path, 1, RATE)
    quiet, busy, published = [], [], []
    for _ in range(lab.options.rounds):
        quiet.append(load.oha_open(sidecar, path, seconds, RATE))
        before = _revision(sidecar, path)
        with Changes(heir, count) as changes:
            busy.append(load.oha_open(sidecar, path, seconds, RATE))
        if _revision(sidecar, path) == before:
            raise LabError(f"{changes.made} changes in the store, and the sidecar published none of them")
        published.append(changes.made)

    def line(name, rounds):
        return [
            name,
            middle([one.p50 for one in rounds], 0),
            middle([one.p99 for one in rounds], 0),
            middle([one.p999 for one in rounds], 0),
            middle([one.slowest for one in rounds], 0),
            ratio([one.p99 for one in rounds], [one.p99 for one in quiet]) if rounds is not quiet else "1",
        ]

    head = ["", "p50, µs", "p99, µs", "p99.9, µs", "slowest, µs", "ratio of p99"]
    return (
        f"{RATE:,} requests/s (open loop, oha) against a sidecar with {count:,} policies, first undisturbed, then while\n"
        f"one policy changes in the store every {CHANGE_EVERY_S} s ({middle(published, 0)} times a round), each time making the\n"
        "sidecar fetch, check and publish a whole new snapshot. Store, sidecar and generator share the cores.\n\n"
        + table(head, [line("undisturbed", quiet), line("new snapshots", busy)])
    )


def _revision(sidecar, path):
    return get(sidecar.url + path)[1].get("x-beamline-snapshot-revision")


class Changes:
    """Replaces one policy in the store now and then, until the block ends."""

    def __init__(self, heir, count):
        self.url = heir.url + samples.last_path(count)
        self.made = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join(30)

    def _work(self):
        while not self.over.wait(CHANGE_EVERY_S):
            # The size alternates, so that every change is one.
            body = samples.policy(self.url.rpartition("/")[2], samples.POLICY_BYTES + self.made % 2)
            request = urllib.request.Request(
                self.url, body.encode(), {"content-type": "application/json"}, method="PUT"
            )
            with urllib.request.urlopen(request, timeout=30):
                self.made += 1
