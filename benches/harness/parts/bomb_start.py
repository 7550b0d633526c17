import json
import time

from .. import components, samples, servers
from ..lab import LabError, get, wait_for_200
from ..table import spread, table

TITLE = "Start with compile bombs"
GOOD, BOMBS = 90, 10
GUESTS = [("pii-guard", "validator"), ("mask-pii-pre", "pre"), ("normalize-text", "pre"), ("latency-scorer", "scorer"), ("mask-pii-post", "post")]
LIMIT_S = 300


def run(lab):
    folder = lab.folder("bomb-start-extensions")
    good, bombs = (GOOD, BOMBS) if not lab.options.quick else (GOOD // 10, BOMBS // 5)
    _write(folder, good, bombs)
    heir = servers.store(lab, 1)
    listening, callable_ = [], []
    for _ in range(lab.options.rounds):
        with lab.only_here():
            begin = time.monotonic()
            # Nothing is known of any module: `state_dir` is another one each time.
            sidecar = servers.sidecar(lab, heir, wait=False, more={"extensions_dir": str(folder)})
            wait_for_200(sidecar.process, sidecar.url + samples.last_path(1), every_s=0.002)
            listening.append((time.monotonic() - begin) * 1000)
            _until_callable(sidecar, good)
            callable_.append(time.monotonic() - begin)
            sidecar.process.stop()
    head = ["extensions", "compile bombs among them", "start until it answers, ms", "until all others can be called, s"]
    row = [str(good + bombs), str(bombs), spread(listening, 0), spread(callable_, 1)]
    return (
        "From starting the process with an empty `state_dir`, until its first 200 of a policy and until every extension\n"
        "that is no compile bomb can be called. Each is a module of its own. A bomb is a valid module of a million functions.\n\n"
        + table(head, [row])
    )


def _write(folder, good, bombs):
    """Records with modules of their own: guests with another custom section each, and bombs."""
    for number in range(good):
        guest, kind = GUESTS[number % len(GUESTS)]
        module = components.COMPONENTS / f"{guest}.wasm"
        if not module.is_file():
            raise LabError(f"{module} is not there: tests/setup.sh guests")
        name = f"good-{number}".encode()
        _record(folder, f"good-{number}", kind, module.read_bytes() + _section(0, bytes([len(name)]) + name))
    for number in range(bombs):
        _record(folder, f"bomb-{number}", "validator", _bomb(1_000_000 - number))


def _record(folder, name, kind, module):
    (folder / f"{name}.wasm").write_bytes(module)
    (folder / f"{name}.json").write_text(json.dumps({"id": name, "type": kind, "module": f"file:{name}.wasm"}))


def _bomb(functions):
    """A component around a core module of so many functions that do nothing."""
    count = _leb(functions)
    module = b"\0asm\x01\0\0\0" + _section(1, b"\x01\x60\0\0") + _section(3, count + bytes(functions))
    module += _section(10, count + b"\x02\0\x0b" * functions)
    return b"\0asm\x0d\0\x01\0" + _section(1, module)


def _section(number, content):
    return bytes([number]) + _leb(len(content)) + content


def _leb(number):
    """A number as WebAssembly writes it."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(written + bytes([number]))


def _until_callable(sidecar, good):
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        status, _, body = get(sidecar.admin + "/admin/extensions")
        if status == 200:
            known = {one["id"] for one in json.loads(body)["extensions"]}
            if sum(name.startswith("good-") for name in known) == good:
                return
        sidecar.process.check_alive()
        time.sleep(0.02)
    raise LabError(f"not all extensions can be called after {LIMIT_S} s")
