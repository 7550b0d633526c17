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
    size = Path(lab.options.sidecar_binary).stat().st_size
    head = ["policies", "VmRSS", "per policy", "idle, of one core"]
    return (
        f"A fresh sidecar each time, fed by a store with so many policies of {samples.POLICY_BYTES} bytes, after its\n"
        "memory has settled, nobody asking; the refresh settings are the defaults.\n\n"
        + table(head, rows)
        + f"\n\nThe release binary has {size:,} bytes ({mebibytes(size)}); the store is in it too."
    )


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
