"""A lab: a temporary directory and the processes of one run, all gone when it closes."""

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

START_LIMIT_S = 120
STOP_LIMIT_S = 20
PR_SET_PDEATHSIG = 1
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class LabError(Exception):
    """The benchmark cannot go on; the text says what to do about it."""


class Lab:
    def __init__(self, options):
        self.options = options
        self.processes = []
        self.numbers = itertools.count(1)

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="beamline-bench-"))
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name, argv, death_signal=signal.SIGKILL):
        process = Process(name, argv, self.dir / f"{self.unique(name)}.log", death_signal)
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def only_here(self):
        """Stops whatever was started inside the block when it ends: a part leaves nothing behind."""
        before = len(self.processes)
        try:
            yield
        finally:
            for process in reversed(self.processes[before:]):
                process.stop()
            del self.processes[before:]

    def unique(self, name):
        """A file name that nothing in this lab has had yet, whatever has stopped meanwhile."""
        return f"{name}-{next(self.numbers)}"

    def folder(self, name):
        path = self.dir / name
        path.mkdir(exist_ok=True)
        return path


class Process:
    """A server that this run started. Only such processes are ever measured or signalled."""

    def __init__(self, name, argv, log, death_signal):
        self.name = name
        self.log = log
        with log.open("wb") as out:
            # Its own session: Ctrl-C reaches this program alone, which then ends the servers in order.
            self.popen = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(death_signal),
            )
        self.pid = self.popen.pid

    def check_alive(self):
        if self.popen.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise LabError(f"{self.name} ended with status {self.popen.returncode}:\n{tail}")

    def signal(self, number):
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def stop(self):
        """Asks to end, waits, and insists after STOP_LIMIT_S."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        if self.popen.poll() is None:
            children = child_pids(self.pid)
            self.signal(signal.SIGKILL)
            self.popen.wait()
            # A killed nginx master leaves its worker behind.
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def die_with_parent(death_signal=signal.SIGKILL):
    """For `preexec_fn`: even a killed benchmark leaves nothing running."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)


def child_pids(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(_stat_fields(stat)[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def _stat_fields(path):
    """The fields after the program's name, which may itself hold spaces and parentheses."""
    return path.read_text().rpartition(")")[2].split()


def cpu_seconds(pid):
    """User and system time so far, of all threads, in steps of 1/SC_CLK_TCK."""
    fields = _stat_fields(Path(f"/proc/{pid}/stat"))
    return int(fields[11]) / TICKS_PER_SECOND, int(fields[12]) / TICKS_PER_SECOND


def cpu_nanoseconds(pid):
    """Time on a CPU so far, of the threads now alive: finer than `cpu_seconds`, for idle processes."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def resident_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LabError(f"process {pid} has no VmRSS")


def settled_resident_bytes(process, limit_s=30):
    """Memory once it has stopped moving, by less than 1 % within two seconds."""
    now = resident_bytes(process.pid)
    for _ in range(limit_s // 2):
        time.sleep(2)
        before, now = now, resident_bytes(process.pid)
        if abs(now - before) < before / 100:
            break
    return now


def free_port(given=set()):
    """A port without a listener that this run gives to no other process: a stopped store's stays dead."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in given:
            given.add(port)
            return port


def get(url, timeout=5):
    """Status, headers and body; status 0 when there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()
    except OSError:
        return 0, {}, b""


def put(url, body, timeout=5):
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"}, method="PUT")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.status


def post(url, body, timeout=5):
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.status, answer.headers, answer.read()


def metric(ops_url, series):
    """The value of one series, with its labels as they are printed; 0 where it is not there yet."""
    _, _, text = get(ops_url + "/metrics")
    for line in text.decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name == series:
            return float(value)
    return 0.0


def wait_for_200(process, url, limit_s=START_LIMIT_S, every_s=0.05):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if get(url)[0] == 200:
            return
        process.check_alive()
        time.sleep(every_s)
    raise LabError(f"{process.name} does not answer {url} with 200 within {limit_s} s")
