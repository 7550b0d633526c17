import time

from .. import samples, servers
from ..lab import LabError, get, wait_for_200
from ..table import spread, table

TITLE = "Cold start without the store"


def run(lab):
    count = 10_000 if lab.options.quick else 100_000
    state = lab.folder("cold-start-state")
    with lab.only_here():
        heir = servers.store(lab, count)
        sidecar = servers.sidecar(lab, heir, state=state)
        wait_for_200(sidecar.process, sidecar.url + samples.last_path(count))
        _wait_until_still(state)
        heir.process.stop()
        sidecar.process.stop()

    times, source = [], ""
    for _ in range(lab.options.rounds):
        with lab.only_here():
            begin = time.monotonic()
            # `heir` still names a port, without a listener by now.
            sidecar = servers.sidecar(lab, heir, state=state, wait=False)
            wait_for_200(sidecar.process, sidecar.admin + "/ready", every_s=0.002)
            times.append((time.monotonic() - begin) * 1000)
            status, headers, _ = get(sidecar.url + samples.last_path(count))
            if status != 200:
                raise LabError(f"ready after a cold start, but the last policy is answered with {status}")
            source = headers.get("x-beamline-source", "not said")
    size = sum(file.stat().st_size for file in state.rglob("*") if file.is_file())
    head = ["policies", "on disk", "start until `/ready` is 200, ms", "`x-beamline-source`"]
    return (
        "From starting the process until its first 200 from `/ready`, with the store gone and the last good snapshot on\n"
        "disk. The files are in the page cache, as after a restart of the container.\n\n"
        + table(head, [[f"{count:,}", f"{size / 2**20:.1f} MiB", spread(times, 0), source]])
    )


def _wait_until_still(folder, limit_s=120):
    """The snapshot is written after it is served: wait until no file has changed for two seconds."""

    def seen():
        return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}

    deadline, before = time.monotonic() + limit_s, None
    while time.monotonic() < deadline:
        now = seen()
        if now and now == before:
            return
        before = now
        time.sleep(2)
    raise LabError(f"the sidecar has written no snapshot to its state_dir within {limit_s} s")
