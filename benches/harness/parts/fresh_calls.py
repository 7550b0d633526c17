import subprocess

from ..lab import LabError, die_with_parent
from ..load import ROOT

TITLE = "Calls of extensions, without HTTP"


def run(lab):
    command = ["cargo", "bench", "--locked", "--bench", "extensions"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=die_with_parent)
    if done.returncode:
        raise LabError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return (
        f"`{' '.join(command)}`: one message of 505 bytes, a fresh instance for each call, with everything that the\n"
        "sidecar does around one but its metrics. The middle of nine rounds on one thread, the best round on one and on two.\n\n"
        + done.stdout.strip()
        + "\n"
    )
