from .. import load, samples, servers
from ..lab import LabError, post, put, wait_for_200
from ..table import middle, ratio, spread, table

TITLE = "Decisions, as many as go"
POLICIES = 1000
TENANT = "bench"
DECIDE = "/api/v1/decide"


def run(lab):
    lookup = samples.last_path(POLICIES)
    heir = servers.store(lab, POLICIES)
    sticky = {"enabled": True, "session_key": "user_id", "ttl": "10m"}
    for policy_id, body in [
        ("two", samples.two_providers()),
        ("full", samples.two_providers(sticky=sticky, circuit_breaker={"enabled": True})),
    ]:
        put(heir.url + samples.path(TENANT, policy_id), body)
    sidecar = servers.sidecar(lab, heir)
    wait_for_200(sidecar.process, sidecar.url + samples.path(TENANT, "full"))

    bodies = [
        samples.decide_request(TENANT, "two"),
        samples.decide_request(TENANT, "full", user_id="user-4711"),
        samples.decide_request(TENANT, "two", detail_level="verbose"),
    ]
    for body in bodies:
        status, _, answer = post(sidecar.url + DECIDE, body)
        if status != 200 or b'"ok":true' not in answer:
            raise LabError(f"no decision: {status} {answer[:500]}")
    scripts = [load.post_script(lab, body) for body in bodies]
    rows = [
        ("lookup", lambda s: load.wrk(sidecar, lookup, s)),
        ("decision: two weighted providers", lambda s: load.wrk(sidecar, DECIDE, s, scripts[0])),
        ("… with a known session and breakers", lambda s: load.wrk(sidecar, DECIDE, s, scripts[1])),
        ("… with a verbose explanation", lambda s: load.wrk(sidecar, DECIDE, s, scripts[2])),
    ]
    for _, measure in rows:
        measure(1)  # warm, not counted
    results = [[] for _ in rows]
    for turn in range(lab.options.rounds):
        for step in range(len(rows)):
            row = (turn + step) % len(rows)
            results[row].append(rows[row][1](lab.options.seconds))

    def line(row):
        cpu = [one.cpu_us for one in results[row]]
        return [
            rows[row][0],
            middle([one.per_second for one in results[row]], 0),
            spread(cpu, 2),
            f"{middle([one.user_us for one in results[row]], 2)} / {middle([one.system_us for one in results[row]], 2)}",
            "1" if row == 0 else ratio(cpu, [one.cpu_us for one in results[0]]),
        ]

    head = ["request", "requests/s", "CPU per request, µs", "user / system", "ratio"]
    return (
        f"`POST {DECIDE}` beside a lookup of {samples.POLICY_BYTES} bytes, of the same sidecar, from wrk with\n"
        f"{load.CONNECTIONS} keep-alive connections; a request for a decision has {len(bodies[0])} bytes. Ratios are of CPU per\n"
        "request, computed within each round.\n\n" + table(head, [line(row) for row in range(len(rows))])
    )
