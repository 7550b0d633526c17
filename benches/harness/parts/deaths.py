import asyncio
import os
import signal
import time
from urllib.parse import urlsplit

from .. import samples, servers
from ..lab import LabError, child_pids, wait_for_200
from ..table import spread, table

TITLE = "A worker that dies"
POLICIES = 10_000
RATE = 1000
STUCK_AFTER_MS = 1000
CONNECTIONS = 64
# What each way to die is called, what is sent for it, and how often for one of `--rounds`.
WAYS = [
    ("`kill -9`", signal.SIGKILL, 3),
    ("SIGSEGV", signal.SIGSEGV, 1),
    ("SIGABRT", signal.SIGABRT, 1),
    (f"SIGSTOP, `runtime.stuck_after_ms` {STUCK_AFTER_MS}", signal.SIGSTOP, 1),
]
BETWEEN_S = 2
LIMIT_S = 60


def run(lab):
    heir = servers.store(lab, POLICIES)
    state = lab.folder(lab.unique("deaths-state"))
    more = {"runtime": {"workers": lab.options.workers, "stuck_after_ms": STUCK_AFTER_MS}}
    sidecar = servers.sidecar(lab, heir, state=state, more=more, supervised=True)
    wait_for_200(sidecar.process, sidecar.url + samples.last_path(POLICIES))
    _wait_for_file(state / "snapshot")
    rows = asyncio.run(_all_ways(lab, sidecar))
    head = ["way", "deaths", "next answer, ms", "requests that failed", "in flight at most"]
    return (
        f"{RATE:,} lookups/s (open loop, up to {CONNECTIONS} connections) of a supervised sidecar with {POLICIES:,} policies, which its\n"
        "worker reads from the disk again. The next answer is the first to a request that was sent after the signal; one\n"
        "that finds no worker waits for the next. Each failed request is one that had been sent before.\n\n"
        + table(head, rows)
    )


async def _all_ways(lab, sidecar):
    asked = Asked(urlsplit(sidecar.url).netloc, samples.last_path(POLICIES))
    loop = asyncio.create_task(asked.run())
    rows = []
    try:
        await asyncio.sleep(1)
        for name, number, times in WAYS:
            took, failed = [], 0
            for _ in range(times * lab.options.rounds):
                took.append(1000 * await _one(asked, sidecar.process, number))
                failed += asked.failed
                await asyncio.sleep(BETWEEN_S)
            rows.append([name, str(len(took)), spread(took, 0), str(failed), str(CONNECTIONS)])
    finally:
        asked.stopped = True
        await loop
    return rows


async def _one(asked, supervisor, number):
    (worker,) = child_pids(supervisor.pid)
    asked.failed = 0
    killed = asked.notice()
    os.kill(worker, number)
    if number == signal.SIGSEGV:
        # The first may be taken for a trap of an extension; a fault would come again and again.
        while worker in child_pids(supervisor.pid) and _is_running(worker):
            try:
                os.kill(worker, number)
            except ProcessLookupError:
                break
            await asyncio.sleep(0.001)
    deadline = time.monotonic() + LIMIT_S
    while not asked.next_answer.done():
        if asked.error:
            raise asked.error
        if time.monotonic() > deadline:
            raise LabError(f"no answer within {LIMIT_S} s of the signal: {asked.opened} connections, {len(asked.free)} free")
        await asyncio.sleep(0.001)
    answered = asked.next_answer.result()
    while child_pids(supervisor.pid) in ([], [worker]) or len(child_pids(supervisor.pid)) != 1:
        if time.monotonic() > deadline:
            raise LabError("there is no other worker")
        await asyncio.sleep(0.01)
    supervisor.check_alive()
    return answered - killed


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for_file(path):
    deadline = time.monotonic() + LIMIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise LabError(f"{path} was not written within {LIMIT_S} s")
        time.sleep(0.05)


class Asked:
    """A client that sends a request whenever one is due, whatever came of those before."""

    def __init__(self, address, path):
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        self.free, self.opened = [], 0
        self.failed, self.stopped = 0, False
        self.killed, self.next_answer, self.error = None, None, None

    def notice(self):
        """From now on the next answer is waited for."""
        self.next_answer = asyncio.get_running_loop().create_future()
        self.killed = time.monotonic()
        return self.killed

    async def run(self):
        tasks, due = set(), time.monotonic()
        while not self.stopped:
            due += 1 / RATE
            # Also where it is late: the others have to have their turn.
            await asyncio.sleep(max(0, due - time.monotonic()))
            if len(tasks) < CONNECTIONS:
                task = asyncio.create_task(self.ask())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.wait_for(asyncio.gather(*tasks), LIMIT_S)
        for _, writer in self.free:
            writer.close()

    async def ask(self):
        began = time.monotonic()
        while True:
            is_new = not self.free
            try:
                connection = await self.answered(self.free.pop() if self.free else None)
                break
            except (OSError, asyncio.IncompleteReadError):
                self.opened -= 1
                if self.stopped:
                    return
                # A connection that had died before anything was asked on it is no failed request: any client opens another.
                if self.killed is None or began < self.killed or is_new:
                    self.failed += 1
                    return
            except LabError as error:
                self.error = error
                return
        self.free.append(connection)
        if self.next_answer and not self.next_answer.done() and began > self.killed:
            self.next_answer.set_result(time.monotonic())

    async def answered(self, connection):
        if not connection:
            self.opened += 1
            connection = await asyncio.open_connection(*self.address)
        reader, writer = connection
        try:
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise LabError(f"a lookup was answered {head[:40]!r}")
            fields = (line.partition(b":") for line in head.lower().splitlines())
            length = next(int(value) for name, _, value in fields if name == b"content-length")
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            raise
        return connection
