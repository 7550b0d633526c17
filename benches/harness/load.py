"""Load generators: wrk for as much as goes, `benches/load.rs` for the same over Unix sockets, oha for a steady rate, and
`benches/steady.rs` for one where microseconds count."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .lab import LabError, cpu_seconds, die_with_parent

CONNECTIONS = 32
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Closed:
    """A closed loop's outcome: each connection asks again as soon as it has its answer."""

    per_second: float
    user_us: float
    system_us: float

    @property
    def cpu_us(self):
        return self.user_us + self.system_us


@dataclass(frozen=True)
class Latency:
    """Microseconds from when a request was due until its answer was read."""

    p50: float
    p99: float
    p999: float
    slowest: float


def wrk(server, path, seconds, script=None):
    """`script`: a file in Lua that says what wrk sends; without one it is a GET."""

    def run():
        argv = [_tool("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}"]
        argv += ["-s", str(script)] if script else []
        text = _run([*argv, server.url + path], seconds)
        if bad := re.search(r"Non-2xx.*|Socket errors.*", text):
            raise LabError(f"wrk against {server.process.name}: {bad[0]}")
        requests, rate = re.search(r"(\d+) requests in", text), re.search(r"Requests/sec:\s*([\d.]+)", text)
        return int(requests[1]), float(rate[1])

    return _with_cpu(server, run)


def post_script(lab, body):
    """A script for `wrk` that posts the same body each time."""
    file = lab.dir / f"{lab.unique('post')}.lua"
    file.write_text(
        f'wrk.method = "POST"\nwrk.body = [==[{body}]==]\nwrk.headers["content-type"] = "application/json"\n'
    )
    return file


def counted_script(lab, before, after):
    """As `post_script`, with a number between the two halves of the body that is another one each time."""
    file = lab.dir / f"{lab.unique('counted')}.lua"
    file.write_text(
        'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nlocal number = 0\n'
        "function request()\n  number = number + 1\n"
        f"  return wrk.format(nil, nil, nil, [==[{before}]==] .. number .. [==[{after}]==])\nend\n"
    )
    return file


def own(server, path, seconds, unix=False):
    """wrk has no Unix sockets, and oha costs more than the servers do."""

    def run():
        address = f"unix:{server.unix}" if unix else server.url.removeprefix("http://")
        report = json.loads(_run([_built("load"), address, path, str(CONNECTIONS), str(seconds)], seconds))
        if report["failed"]:
            raise LabError(f"{report['failed']} connections to {server.process.name} failed")
        return report["requests"], report["requests"] / report["seconds"]

    return _with_cpu(server, run)


def steady(server, path, seconds, rate, body=None):
    """Requests at a fixed rate, each timed from when it was due, by `benches/steady.rs`. With a body, it is posted."""
    argv = [_built("steady"), server.url.removeprefix("http://"), path, str(CONNECTIONS), str(seconds), str(rate)]
    report = json.loads(_run([*argv, *([body] if body else [])], seconds))
    server.process.check_alive()
    return Latency(report["p50_us"], report["p99_us"], report["p999_us"], report["slowest_us"])


@cache
def _built(name):
    """The path of one of the generators in this folder's parent."""
    build = ["cargo", "bench", "--locked", "--bench", name, "--no-run", "--message-format", "json"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"the load generator does not build: {done.stderr[-2000:]}")
    built = [json.loads(line) for line in done.stdout.splitlines()]
    return next(one["executable"] for one in built if one.get("target", {}).get("name") == name)


def oha_open(server, path, seconds, rate, unix=False, body=None):
    """Requests at a fixed rate; a late answer delays no other request's clock. With a body, it is posted."""
    extra = ["-q", str(rate), "--latency-correction"]
    extra += ["-m", "POST", "-T", "application/json", "-d", body] if body else []
    report = _oha(server, path, seconds, unix, extra)
    at = {name: seconds * 1e6 for name, seconds in report["latencyPercentiles"].items()}
    return Latency(at["p50"], at["p99"], at["p99.9"], report["summary"]["slowest"] * 1e6)


def _with_cpu(server, run):
    before = cpu_seconds(server.pid)
    requests, rate = run()
    after = cpu_seconds(server.pid)
    server.process.check_alive()
    user, system = ((late - early) * 1e6 / requests for early, late in zip(before, after))
    return Closed(rate, user, system)


def _oha(server, path, seconds, unix, extra):
    argv = [_tool("oha"), "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", str(CONNECTIONS)]
    argv += ["--worker-threads", "1", "--disable-compression", *extra]
    argv += ["--unix-socket", str(server.unix)] if unix else []
    report = json.loads(_run([*argv, server.url + path], seconds))
    wrong = {status: n for status, n in report["statusCodeDistribution"].items() if status != "200"}
    # Requests on their way when the time is up are not failures.
    failed = {text: n for text, n in report["errorDistribution"].items() if "deadline" not in text}
    if wrong or failed:
        raise LabError(f"oha against {server.process.name}: {wrong or ''} {failed or ''}")
    return report


def _tool(name):
    found = shutil.which(name, path=f"{ROOT / '.bench' / 'bin'}:{os.environ['PATH']}")
    if not found:
        raise LabError(f"no {name} here: run tests/setup.sh bench")
    return found


def _run(argv, seconds):
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=seconds + 60, preexec_fn=die_with_parent
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{argv[0]} did not end by itself after {seconds} s") from None
    if done.returncode:
        raise LabError(f"{argv[0]} failed: {done.stderr[-2000:]}")
    return done.stdout
