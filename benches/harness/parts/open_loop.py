from .. import load, samples, servers
from ..table import middle, ratio, table

TITLE = "Lookups at a steady rate"
POLICIES = 1000
RATE = 5000


def run(lab):
    path = samples.last_path(POLICIES)
    _, _, policy_id = path.rpartition("/")
    heir = servers.store(lab, POLICIES)
    sidecar = servers.sidecar(lab, heir)
    plain = servers.nginx_return(lab, samples.policy(policy_id))

    rows = [
        ("nginx `return 200`", plain, False),
        ("sidecar", sidecar, False),
        ("nginx `return 200`, Unix socket", plain, True),
        ("sidecar, Unix socket", sidecar, True),
    ]
    for _, server, unix in rows:
        load.oha_open(server, path, 1, RATE, unix)
    results = [[] for _ in rows]
    for turn in range(lab.options.rounds):
        for step in range(len(rows)):
            row = (turn + step) % len(rows)
            _, server, unix = rows[row]
            results[row].append(load.oha_open(server, path, lab.options.seconds, RATE, unix))

    def line(row):
        name, _, unix = rows[row]
        base = 2 if unix else 0
        p99 = [one.p99 for one in results[row]]
        return [
            name,
            middle([one.p50 for one in results[row]], 0),
            middle(p99, 0),
            middle([one.p999 for one in results[row]], 0),
            "1" if row == base else ratio(p99, [one.p99 for one in results[base]]),
        ]

    head = ["server", "p50, µs", "p99, µs", "p99.9, µs", "ratio of p99"]
    return (
        f"Open loop, {RATE:,} requests/s over {load.CONNECTIONS} connections with oha, latency counted from when a\n"
        "request was due. Medians over the rounds.\n\n" + table(head, [line(row) for row in range(len(rows))])
    )
