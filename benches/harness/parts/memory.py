import time
from pathlib import Path

from .. import lab as lab_module
from .. import samples, servers
from ..table import mebibytes, table

TITLE = "Memory, idle CPU and size"


def run(lab):
    counts = [1, 10_000] + ([] if lab.options.quick else [100_000])
    measured = [(count, *_measure(lab, count)) for count in counts]
    _, base, _ = measured[0]
    rows = []
    for count, resident, idle in measured:
        each = "" if count == 1 else f"{(resident - base) / (count - 1):,.0f} B"
        rows.append([f"{count:,}", mebibytes(resident), each, f"{idle:.3f} %"])
    decided, before, after = _decided(lab, 1_000 if lab.options.quick else 10_000)
    size = Path(lab.options.sidecar_binary).stat().st_size
    head = ["policies", "VmRSS", "per policy", "idle, of one core"]
    return (
        f"A fresh sidecar each time, fed by a store with so many policies of {samples.POLICY_BYTES} bytes, after its\n"
        "memory has settled, without requests; the refresh settings are the defaults.\n\n"
        + table(head, rows)
        + f"\n\nA decision keeps the policy it was made from in the form it is decided on: after one decision on each of\n"
        f"{decided:,} policies VmRSS is {mebibytes(after)}, {mebibytes(before)} before."
        + f"\n\nThe release binary has {size:,} bytes ({mebibytes(size)}); the store is in it too."
    )


def _decided(lab, count):
    """Memory before and after each of so many policies was decided on once."""
    with lab.only_here():
        sidecar = servers.sidecar(lab, servers.store(lab, count))
        lab_module.wait_for_200(sidecar.process, sidecar.url + samples.last_path(count))
        before = lab_module.settled_resident_bytes(sidecar.process)
        for tenant, policy_id in samples.names(count):
            lab_module.post(sidecar.url + "/api/v1/decide", samples.decide_request(tenant, policy_id, user_id="u-1"))
        return count, before, lab_module.settled_resident_bytes(sidecar.process)


def _measure(lab, count):
    with lab.only_here():
        sidecar = servers.sidecar(lab, servers.store(lab, count))
        lab_module.wait_for_200(sidecar.process, sidecar.url + samples.last_path(count))
        resident = lab_module.settled_resident_bytes(sidecar.process)
        # Threads that built the snapshot end ten seconds later, and take their time on the CPU with them.
        time.sleep(12)
        before, start = lab_module.cpu_nanoseconds(sidecar.pid), time.monotonic_ns()
        time.sleep(max(10, 2 * lab.options.seconds))
        used = lab_module.cpu_nanoseconds(sidecar.pid) - before
        return resident, 100 * used / (time.monotonic_ns() - start)
