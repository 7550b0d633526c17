from .. import load, samples, servers
from ..table import middle, ratio, spread, table

TITLE = "Lookups, as many as go"
POLICIES = 1000


def run(lab):
    path = samples.last_path(POLICIES)
    _, _, policy_id = path.rpartition("/")
    heir = servers.store(lab, POLICIES)
    sidecar = servers.sidecar(lab, heir)
    plain = servers.nginx_return(lab, samples.policy(policy_id))
    cache = servers.nginx_cache(lab, heir, path)

    # Name, generator, server, and the row that its CPU time is compared with.
    rows = [
        ("nginx `return 200`", "wrk", lambda s: load.wrk(plain, path, s), 0),
        ("sidecar", "wrk", lambda s: load.wrk(sidecar, path, s), 0),
        ("nginx `proxy_cache` hit", "wrk", lambda s: load.wrk(cache, path, s), 0),
        ("store, without sidecar", "wrk", lambda s: load.wrk(heir, path, s), 0),
        ("sidecar", "own", lambda s: load.own(sidecar, path, s), 4),
        ("sidecar, Unix socket", "own", lambda s: load.own(sidecar, path, s, unix=True), 4),
        ("nginx `return 200`, Unix socket", "own", lambda s: load.own(plain, path, s, unix=True), 4),
    ]
    for _, _, measure, _ in rows:
        measure(1)  # warm, not counted
    results = [[] for _ in rows]
    for turn in range(lab.options.rounds):
        # Each round begins with another server, so that none always follows the same one.
        for step in range(len(rows)):
            row = (turn + step) % len(rows)
            results[row].append(rows[row][2](lab.options.seconds))

    def line(row):
        name, generator, _, base = rows[row]
        rounds, against = results[row], results[base]
        cpu = [one.cpu_us for one in rounds]
        return [
            name,
            generator,
            middle([one.per_second for one in rounds], 0),
            spread(cpu, 2),
            f"{middle([one.user_us for one in rounds], 2)} / {middle([one.system_us for one in rounds], 2)}",
            "1" if row == base else ratio(cpu, [one.cpu_us for one in against]),
        ]

    head = ["server", "generator", "requests/s", "CPU per request, µs", "user / system", "ratio"]
    return (
        f"Closed loop, {load.CONNECTIONS} keep-alive connections, {samples.POLICY_BYTES}-byte body. CPU per request is the\n"
        "server process' user and system time divided by the requests answered. Ratios are of CPU per request,\n"
        "computed within each round, to the row marked 1 of the same generator. wrk has no Unix sockets; `benches/load.rs`\n"
        "(own) has both.\n\n"
        + table(head, [line(row) for row in range(len(rows))])
    )
