#!/usr/bin/env python3
"""Measures the sidecar against nginx on this machine. See --help; `make bench` sets up what it needs."""

import argparse
import shlex
import signal
import sys
from pathlib import Path

from harness import report
from harness.lab import Lab, LabError
from harness.parts import PARTS

ROOT = Path(__file__).resolve().parents[1]


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 4, with --quick 2)")
    parser.add_argument("--seconds", type=int, help="length of each measurement (default 5, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="short and small: to see that it works, not to compare")
    parser.add_argument("--workers", type=int, default=1, help="the sidecar's runtime.workers (default 1)")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md; needs every part, not --quick")
    parser.add_argument("--sidecar-binary", type=Path, default=ROOT / "target" / "release" / "beamline-sidecar")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if chosen.write and (chosen.parts or chosen.quick):
        parser.error("--write describes one whole run: it takes neither parts nor --quick")
    if not chosen.sidecar_binary.is_file():
        parser.error(f"{chosen.sidecar_binary} is not there: make build")
    chosen.sidecar_binary = chosen.sidecar_binary.resolve()
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 4)
    chosen.seconds = chosen.seconds or (1 if chosen.quick else 5)
    return chosen


def main():
    chosen = options()
    command = shlex.join(["benches/run.py", *sys.argv[1:]])
    # However it is ended, tidy up; a shell may have started it with some of these ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    print(report.about(chosen, command), flush=True)
    sections = []
    try:
        with Lab(chosen) as lab:
            for name, part in PARTS.items():
                if chosen.parts and name not in chosen.parts:
                    continue
                print(f"\n## {part.TITLE} ({name})\n", flush=True)
                with lab.only_here():
                    body = part.run(lab)
                print(body, flush=True)
                sections.append((part.TITLE, body))
    except LabError as error:
        print(f"benches/run.py: {error}", file=sys.stderr)
        return 1
    if chosen.write:
        report.write(sections, chosen, command)
        print(f"\nwritten to {report.FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
