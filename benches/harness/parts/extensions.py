from .. import components, load, samples, servers
from ..lab import LabError, post, put, resident_bytes, wait_for_200
from ..table import middle, mebibytes, ratio, spread, table

TITLE = "Decisions with extensions"
RATE = 5000
TENANT = "bench"
DECIDE = "/api/v1/decide"
# Nothing of it is found, so that every request is decided.
TEXT = "How do I change my plan? " * 18


def run(lab):
    heir = servers.store(lab, 1)
    folder = components.register(
        lab,
        {"id": "normalize", "type": "pre", "component": "normalize-text"},
        {"id": "guard", "type": "validator", "component": "pii-guard"},
        {"id": "scorer", "type": "scorer", "component": "latency-scorer"},
    )
    policies = {
        "none": {},
        "one": {"validators": [{"id": "guard"}]},
        "scored": {"scorers": [{"id": "scorer"}]},
        "three": {"pre": [{"id": "normalize"}], "validators": [{"id": "guard"}], "scorers": [{"id": "scorer"}]},
    }
    for policy_id, more in policies.items():
        put(heir.url + samples.path(TENANT, policy_id), samples.two_providers(**more))
    sidecar = servers.sidecar(lab, heir, more={"extensions_dir": str(folder)})
    wait_for_200(sidecar.process, sidecar.url + samples.path(TENANT, "three"))
    before = resident_bytes(sidecar.pid)
    bodies = {policy_id: body(policy_id) for policy_id in policies}
    for text in bodies.values():
        status, _, answer = post(sidecar.url + DECIDE, text)
        if status != 200 or b'"ok":true' not in answer or b'"status":"error"' in answer:
            raise LabError(f"no decision: {status} {answer[:500]}")
    scripts = {policy_id: load.post_script(lab, text) for policy_id, text in bodies.items()}
    names = {
        "none": "no extension",
        "one": "pii-guard",
        "scored": "latency-scorer",
        "three": "normalize-text, pii-guard, latency-scorer",
    }
    closed = {policy_id: [] for policy_id in policies}
    opened = {policy_id: [] for policy_id in policies}
    load.wrk(sidecar, DECIDE, 1, scripts["three"])  # warm, not counted
    order = list(policies)
    for turn in range(lab.options.rounds):
        for step in range(len(order)):
            policy_id = order[(turn + step) % len(order)]
            closed[policy_id].append(load.wrk(sidecar, DECIDE, lab.options.seconds, scripts[policy_id]))
            opened[policy_id].append(load.steady(sidecar, DECIDE, lab.options.seconds, RATE, body=bodies[policy_id]))
    after = resident_bytes(sidecar.pid)

    def line(policy_id):
        cpu = [one.cpu_us for one in closed[policy_id]]
        p50 = [one.p50 for one in opened[policy_id]]
        p99 = [one.p99 for one in opened[policy_id]]
        more = [a - b for a, b in zip(p50, [one.p50 for one in opened["none"]])]
        return [
            names[policy_id],
            middle([one.per_second for one in closed[policy_id]], 0),
            spread(cpu, 1),
            middle(p50, 0),
            middle(p99, 0),
            "" if policy_id == "none" else f"+{middle(more, 0)} / +{middle([a - b for a, b in zip(p99, [one.p99 for one in opened['none']])], 0)}",
        ]

    head = ["extensions", "requests/s", "CPU per request, µs", "p50, µs", "p99, µs", "more than none, p50 / p99"]
    return (
        f"`POST {DECIDE}` with a payload of {len(TEXT) + 11} bytes: as many as go (wrk, {load.CONNECTIONS} connections), and at\n"
        f"{RATE:,} requests/s (`benches/steady.rs`). Every call has a fresh instance. Resident memory of the sidecar went from\n"
        f"{mebibytes(before)} to {mebibytes(after)}.\n\n" + table(head, [line(policy_id) for policy_id in order])
    )


def body(policy_id):
    import json

    request = json.loads(samples.decide_request(TENANT, policy_id))
    request["task"]["payload"] = {"text": TEXT}
    return json.dumps(request)
