"""The extensions that `wasm-extensions/build.sh` makes, for a sidecar under test."""

import json
import shutil
import time
from pathlib import Path

from .lab import LabError, get

COMPONENTS = Path(__file__).resolve().parents[2] / "wasm-extensions" / "target" / "components"


def register(lab, *records):
    """A directory of extensions with these records; `component` in each names the module's file."""
    folder = lab.folder(lab.unique("extensions"))
    for record in records:
        component = record.pop("component")
        module = COMPONENTS / f"{component}.wasm"
        if not module.is_file():
            raise LabError(f"{module} is not there: tests/setup.sh guests")
        shutil.copy(module, folder)
        record["module"] = f"file:{component}.wasm"
        (folder / f"{record['id']}.json").write_text(json.dumps(record))
    return folder


def wait_until_callable(sidecar, limit_s=300):
    """Modules are compiled beside serving: waits until none is pending."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        status, _, body = get(sidecar.admin + "/admin/extensions")
        if status == 200 and json.loads(body)["pending"] == []:
            return
        sidecar.process.check_alive()
        time.sleep(0.1)
    raise LabError(f"extensions are still pending after {limit_s} s")
