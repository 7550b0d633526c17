from .. import load, samples, servers
from .. import lab as lab_module
from ..lab import LabError, metric, put, wait_for_200
from ..table import mebibytes, table

TITLE = "A million sticky sessions"
TENANT = "bench"
DECIDE = "/api/v1/decide"
SESSIONS = "beamline_sidecar_sticky_sessions"
EVICTED = "beamline_sidecar_sticky_evictions_total"


def run(lab):
    wanted = 100_000 if lab.options.quick else 1_000_000
    rows = [_measure(lab, wanted, bound) for bound in (wanted // 10, 2 * wanted)]
    head = ["decide.max_sticky_sessions", "asked for", "kept", "evicted", "VmRSS before", "VmRSS after", "per session"]
    return (
        "Every request has a new session; the values have some 16 bytes. A full table\n"
        "forgets the sessions used longest ago.\n\n" + table(head, rows)
    )


def _measure(lab, wanted, bound):
    with lab.only_here():
        heir = servers.store(lab, 1)
        sticky = {"enabled": True, "session_key": "user_id", "ttl": "24h"}
        put(heir.url + samples.path(TENANT, "sticky"), samples.two_providers(sticky=sticky))
        sidecar = servers.sidecar(lab, heir, decide={"max_sticky_sessions": bound})
        wait_for_200(sidecar.process, sidecar.url + samples.path(TENANT, "sticky"))
        before = lab_module.settled_resident_bytes(sidecar.process)
        asked, turn = 0, 0
        while asked < wanted:
            turn += 1
            body = samples.decide_request(TENANT, "sticky", user_id=f"run-{turn}-SPLIT")
            script = load.counted_script(lab, *body.split("SPLIT"))
            load.wrk(sidecar, DECIDE, lab.options.seconds, script)
            asked = int(_asked(sidecar))
        after = lab_module.settled_resident_bytes(sidecar.process)
        kept, evicted = metric(sidecar.admin, SESSIONS), metric(sidecar.admin, EVICTED)
        if kept > bound or kept + evicted != asked:
            raise LabError(f"{asked} sessions: {kept:.0f} kept of at most {bound}, {evicted:.0f} evicted")
        each = f"{(after - before) / kept:,.0f} B"
        return [f"{bound:,}", f"{asked:,}", f"{kept:,.0f}", f"{evicted:,.0f}", mebibytes(before), mebibytes(after), each]


def _asked(sidecar):
    return metric(sidecar.admin, f'router_sticky_miss_total{{tenant_id="{TENANT}"}}')
