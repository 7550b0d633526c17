"""docs/performance.md: the machine, the versions, the command, and what the parts found."""

import os
import platform
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

from .load import ROOT

FILE = ROOT / "docs" / "performance.md"


def about(options, command):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    facts = [
        ("machine", f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, {int(memory[1]) / 2**20:.0f} GiB"),
        ("kernel", f"{platform.system()} {platform.release()}"),
        ("sidecar", _first_line(options.sidecar_binary, "--version")),
        ("compiler", _first_line("rustc", "--version")),
        ("nginx", _first_line(shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "-v")),
        ("wrk", _first_line("wrk", "-v")),
        ("oha", _first_line(str(ROOT / ".bench" / "bin" / "oha"), "--version")),
        ("date", date.today().isoformat()),
        ("command", f"`{command}`"),
        ("rounds", f"{options.rounds} of {options.seconds} s each, interleaved; medians, and in brackets the extremes"),
    ]
    return "\n".join(f"* {name}: {fact}" for name, fact in facts)


def write(sections, options, command):
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(document(sections, options, command))


def document(sections, options, command):
    parts = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections)
    return f"""# Performance

Written by `{command}`; do not edit. Figures drift by some 15 % between runs, more on a machine with
other work: compare within one table only.

{about(options, command)}

Not in these figures: TLS, a network (everything is on loopback, the generator shares the machine's cores with the
server), audit, and hosts with other work. Nothing that was measured is left out; one warming run before
the first round of each server is not counted.

{parts}
"""


def _first_line(*argv):
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=10)
    except OSError:
        return "not here"
    return (done.stdout + done.stderr).strip().partition("\n")[0] or "not said"
