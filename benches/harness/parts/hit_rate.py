import http.client
import random
import re
import signal
import time
from urllib.parse import urlsplit

from .. import samples, servers
from ..lab import LabError, get, wait_for_200
from ..table import table

TITLE = "Hit rate"
POLICIES = 10_000
# Of so many lookups one is of a policy that was written the moment before, and one of a policy that never was.
ONE_IN = 50


def run(lab):
    heir = servers.store(lab, POLICIES)
    sidecar = servers.sidecar(lab, heir)
    wait_for_200(sidecar.process, sidecar.url + samples.last_path(POLICIES))
    asked = Asked(sidecar, POLICIES)
    seconds = lab.options.seconds * 2

    rows = [asked.for_seconds("up", seconds, changes=True)]
    heir.process.signal(signal.SIGSTOP)
    try:
        rows.append(asked.for_seconds("hanging", seconds, changes=False))
    finally:
        heir.process.signal(signal.SIGCONT)
    wait_for_200(heir.process, heir.url + "/health")
    rows.append(asked.for_seconds("up again", seconds, changes=True))
    head = ["store", "lookups", "hits", "misses", "hit rate", "wrong answers"]
    return (
        f"One client, one lookup after the other, of any of {POLICIES:,} policies. One in {ONE_IN} is of a policy that was written\n"
        f"through the sidecar the moment before (while the store hangs, none), and one in {ONE_IN} of a policy that does not exist:\n"
        "a miss, wherever it is known. Hits and misses as `router_policy_store_cache_hits_total` and `…_misses_total` count\n"
        "them; a wrong answer is any status or document but the one that the store has.\n\n" + table(head, rows)
    )


class Asked:
    def __init__(self, sidecar, policies):
        self.sidecar = sidecar
        self.names = list(samples.names(policies))
        self.random = random.Random(1)
        self.put = 0

    def for_seconds(self, name, seconds, changes):
        before = self._counted()
        until, count, wrong = time.monotonic() + seconds, 0, 0
        while time.monotonic() < until:
            chance = self.random.randrange(ONE_IN)
            if chance == 0 and changes:
                path, want = self._new()
            elif chance == 1:
                path, want = f"/api/v1/policies/{self.names[0][0]}/never-{count}", None
            else:
                tenant, policy_id = self.random.choice(self.names)
                path, want = f"/api/v1/policies/{tenant}/{policy_id}", samples.policy(policy_id)
            status, _, body = get(self.sidecar.url + path)
            right = status == 404 if want is None else (status, body.decode()) == (200, want)
            count, wrong = count + 1, wrong + (not right)
        hits, misses = (now - then for now, then in zip(self._counted(), before))
        return [name, f"{count:,}", f"{hits:,.0f}", f"{misses:,.0f}", f"{100 * hits / (hits + misses):.2f} %", str(wrong)]

    def _new(self):
        self.put += 1
        tenant, policy_id = self.names[0][0], f"new-{self.put}"
        document = samples.policy(policy_id)
        path = f"/api/v1/policies/{tenant}/{policy_id}"
        connection = http.client.HTTPConnection(urlsplit(self.sidecar.url).netloc, timeout=5)
        connection.request("PUT", path, body=document, headers={"content-type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        if status not in (200, 201):
            raise LabError(f"a write was answered {status}")
        return path, document

    def _counted(self):
        _, _, body = get(self.sidecar.admin + "/metrics")
        text = body.decode()
        return [
            sum(float(value) for value in re.findall(rf"^router_policy_store_cache_{what}_total\S* (\S+)$", text, re.M))
            for what in ("hits", "misses")
        ]
