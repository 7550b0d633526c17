"""The servers under test and beside it, each on loopback ports of its own."""

import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from . import samples
from .lab import LabError, Process, child_pids, free_port, get, wait_for_200


@dataclass(frozen=True)
class Server:
    process: Process
    # Whose CPU time counts: nginx's worker, not its master.
    pid: int
    url: str
    unix: Path | None = None
    admin: str | None = None


def store(lab, policies, level=None):
    """A store in memory with so many policies."""
    folder = lab.folder(f"policies-{policies}")
    if not any(folder.iterdir()):
        samples.write(folder, policies)
    port = free_port()
    argv = [lab.options.sidecar_binary, "store", "--listen", f"127.0.0.1:{port}", "--db", ":memory:", "--import", folder]
    process = lab.start("store", argv + (["--level", level] if level else []))
    server = Server(process, process.pid, f"http://127.0.0.1:{port}")
    wait_for_200(process, server.url + samples.last_path(policies))
    return server


def sidecar(lab, heir, state=None, refresh=None, wait=True, decide=None, more=None, supervised=False):
    """A sidecar in front of `heir`, on TCP and a Unix socket, all telemetry on."""
    name = lab.unique("sidecar")
    port, admin = free_port(), free_port()
    unix = lab.dir / f"{name}.sock"
    config = {
        "listen": [f"127.0.0.1:{port}", f"unix:{unix}"],
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "heir": {"url": heir.url, "timeout_ms": 5000},
        "state_dir": str(state or lab.folder(f"{name}-state")),
        "runtime": {"workers": lab.options.workers},
    }
    if refresh:
        config["refresh"] = refresh
    if decide:
        config["decide"] = decide
    config.update(more or {})
    file = lab.dir / f"{name}.yaml"
    file.write_text(json.dumps(config, indent=2))  # JSON is YAML
    process = lab.start("sidecar", [lab.options.sidecar_binary, "run", *(["--supervised"] if supervised else []), "--config", file])
    server = Server(process, process.pid, f"http://127.0.0.1:{port}", unix, f"http://127.0.0.1:{admin}")
    if wait:
        wait_for_200(process, server.admin + "/ready")
    return server


def nginx_return(lab, body):
    """nginx answering every request with the same body: the least an HTTP server can do."""
    location = f"default_type application/json; return 200 '{body}';"
    return _nginx(lab, "nginx-return", "", location)


def nginx_cache(lab, heir, warm_path):
    """nginx as a caching proxy in front of `heir`, with `warm_path` cached."""
    cache = lab.folder(lab.unique("nginx-cache-entries"))
    http = f"proxy_cache_path {cache} keys_zone=policies:10m;"
    location = (
        f"proxy_pass {heir.url}; proxy_cache policies; proxy_cache_valid 200 1h;"
        " proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;"
    )
    server = _nginx(lab, "nginx-cache", http, location)
    for _ in range(3):
        get(server.url + warm_path)
    if not any(path.is_file() for path in cache.rglob("*")):
        raise LabError("nginx cached nothing; its cached figures would be the store's")
    return server


def _nginx(lab, name, http, location):
    binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if not binary:
        raise LabError("no nginx here: run tests/setup.sh bench")
    prefix = lab.folder(lab.unique(name))
    port, unix = free_port(), prefix / "nginx.sock"
    config = f"""
        {"user root;" if os.geteuid() == 0 else ""}
        worker_processes 1;
        daemon off;
        pid {prefix}/nginx.pid;
        error_log stderr;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            keepalive_requests 1000000000;
            client_body_temp_path {prefix}/client;
            proxy_temp_path {prefix}/proxy;
            fastcgi_temp_path {prefix}/fastcgi;
            uwsgi_temp_path {prefix}/uwsgi;
            scgi_temp_path {prefix}/scgi;
            {http}
            server {{
                listen 127.0.0.1:{port};
                listen unix:{unix};
                location / {{ {location} }}
            }}
        }}
    """
    file = prefix / "nginx.conf"
    file.write_text(config)
    # SIGTERM, because a killed master would leave its worker.
    process = lab.start(name, [binary, "-e", "stderr", "-p", prefix, "-c", file], death_signal=signal.SIGTERM)
    url = f"http://127.0.0.1:{port}"
    wait_for_200(process, url + samples.last_path(1))
    workers = child_pids(process.pid)
    if len(workers) != 1:
        # The cache has a loader and a manager beside the worker: take the one by its title.
        workers = [pid for pid in workers if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return Server(process, workers[0], url, unix)
