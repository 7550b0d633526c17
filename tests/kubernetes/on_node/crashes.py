"""Processes that die: of the sidecar, by its limit of memory, and of HEIR on Postgres."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import rig
from rig import (HELM4, NODE, OWN_IMAGE, case, chart, containers, counts, create, delete, eventually, get, listed, namespace, pod, processes,
                 ready_pod, require, run)


def worker(found):
    """The process that serves; above it is the supervisor."""
    pids = processes(found)
    return pids, [pid for pid in pids.get("beamline-sidecar", [])]


@case
def ten_crashes_in_a_minute_cost_no_restart_and_no_gap_of_100_ms():
    rig.base()
    with namespace("crashes") as place:
        create(pod("router", environment={"ROUTER_LOOKUPS": 100, "ROUTER_DECISIONS": 50}), place)
        found = ready_pod("router", place, 90)
        time.sleep(3)
        under_way, begun = 0, time.monotonic()
        for _ in range(10):
            pids, serving = worker(found)
            require("beamline-sidecar-supervisor" in pids, lambda: f"there is no supervisor: {pids}")
            under_way += counts(found)["under_way"] + 1
            for pid in serving:
                os.kill(pid, signal.SIGKILL)
            eventually("the next worker", lambda: set(worker(found)[1]) - set(serving), 20)
            time.sleep(4)
        took = time.monotonic() - begun
        seen, status = counts(found), containers(get("pods", "router", place))["beamline-sidecar"]
        require(status["restartCount"] == 0, "the kubelet restarted the container")
        require(took < 90, f"ten crashes took {took:.0f} s")
        require(seen["failed"] <= under_way, lambda: f"{seen['failed']} failed of {under_way} at most under way: {seen['failures'][:5]}")
        said = (f"{seen['lookups'] + seen['decisions']} calls, {seen['failed']} failed of {under_way} that may have been under way, longest gap "
                f"{seen['longest_gap_ms']} ms")
        require(seen["longest_gap_ms"] < 100, said)
        return said


@case
def a_limit_of_memory_that_is_hit_is_told_and_the_next_start_answers_from_the_disk_within_a_second():
    """The limit is lowered to what the sidecar uses, and then there are more policies: the kernel kills."""
    rig.base()
    with namespace("memory") as place:
        create(pod("router", environment={"ROUTER_LOOKUPS": 50, "ROUTER_DECISIONS": 0}), place)
        found = ready_pod("router", place, 90)
        time.sleep(3)
        ident = containers(found)["beamline-sidecar"]["containerID"].split("//")[1]
        [group] = [path for path in Path("/sys/fs/cgroup/memory").rglob(ident)]
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        pids, before = worker(found)
        for size in range(int(stat["rss"]) >> 20, 256):
            try:
                (group / "memory.limit_in_bytes").write_text(str((size + 1) << 20))
                break
            except OSError:
                continue
        number, killed = 0, threading.Event()

        def write():
            nonlocal number
            while not killed.is_set() and number < 20_000:
                number += 1
                rig.heir("PUT", f"/api/v1/policies/memory/p{number}", {**rig.POLICY, "metadata": {"text": f"{number}" + "x" * 20000}})
        writer = threading.Thread(target=write)
        writer.start()
        try:
            # Seen at once: the next worker must not meet the same limit.
            eventually("the kill by the limit", lambda: set(worker(found)[1]) != set(before), 120, 0.01)
        finally:
            (group / "memory.limit_in_bytes").write_text(str(256 << 20))
            killed.set()
            writer.join()
        time.sleep(3)
        seen, status = counts(found), containers(get("pods", "router", place))["beamline-sidecar"]
        for gone in range(1, number + 1):
            rig.heir("DELETE", f"/api/v1/policies/memory/p{gone}")
        require(status["restartCount"] == 0, lambda: json.dumps(status))
        told = rig.metrics(found["status"]["podIP"])
        # One line for each cause.
        restarts = re.findall(r"^beamline_sidecar_worker_restarts_total.* (\d+)$", told, re.M)
        require(sum(map(int, restarts)) >= 1, lambda: f"no metric tells of the restart: {restarts}")
        log = rig.api.call("GET", f"/api/v1/namespaces/{place}/pods/router/log?container=beamline-sidecar", raw=True)
        require("signal 9" in log or "SIGKILL" in log, lambda: log[-2000:])
        said = f"{seen['lookups']} lookups, {seen['failed']} failed, longest gap {seen['longest_gap_ms']} ms"
        require(seen["longest_gap_ms"] < 1000, said)
        return said


class Postgres:
    """Debian's, beside the node, in its network."""

    def __enter__(self):
        [self.programs] = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
        self.folder = Path("/var/tmp/beamline-node-postgres")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.chown(self.folder, "postgres")
        self.owner("initdb", "-D", self.folder / "data", "-U", "heir", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        (self.folder / "data/pg_hba.conf").write_text("host all all 0.0.0.0/0 trust\nlocal all all trust\n")
        self.start()
        return self

    def owner(self, program, *arguments):
        run("runuser", "-u", "postgres", "--", self.programs / program, *arguments, cwd="/", timeout=120, stdin=subprocess.DEVNULL)

    def start(self):
        # Its output to a file: a server that outlives this call would hold a pipe open.
        subprocess.run(["runuser", "-u", "postgres", "--", str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w",
                        "-o", f"-c listen_addresses='{NODE}' -c unix_socket_directories='{self.folder}' -c max_connections=200", "start"],
                       cwd="/", check=True, timeout=120, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, mode):
        self.owner("pg_ctl", "-D", self.folder / "data", "-m", mode, "-w", "stop")

    def __exit__(self, *_):
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


@case
def heir_on_postgres_is_killed_and_failed_over_under_writes_and_nothing_is_lost():
    rig.image()
    with namespace("heir-postgres") as place, Postgres() as database:
        rig.secret("heir-database", place, url=f"postgres://heir@{NODE}/postgres")
        HELM4.install("heir", chart("beamline-heir"), place, {
            "image": OWN_IMAGE, "database": "postgres", "replicas": 2, "postgres": {"urlSecret": {"name": "heir-database"}}})
        try:
            HELM4("test", "heir", "--namespace", place)
            where = f"http://{rig.service('heir', place)}:8090/api/v1/policies/acme/"
            acknowledged, refusals, stopped, writes = {}, [], threading.Event(), []

            def write(writer):
                turn = 0
                while not stopped.is_set():
                    turn += 1
                    name, mark = f"w{writer}-{turn % 20}", turn
                    try:
                        status, _, _ = rig.http_call("PUT", where + name, {**rig.POLICY, "metadata": {"mark": mark}}, timeout=10)
                    except OSError as error:
                        status = str(error)
                    if status in (200, 201, 204):
                        acknowledged[name] = mark
                        writes.append(name)
                    else:
                        refusals.append(status)
                        time.sleep(0.05)

            writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
            for writer in writers:
                writer.start()

            def pods():
                return [one for one in listed("pods", place, "app.kubernetes.io/component=store") if "deletionTimestamp" not in one["metadata"]]

            def healthy():
                return sum(map(rig.is_ready, pods())) == 2

            time.sleep(2)
            # One replica's process, one replica's pod, and the database itself.
            victim = pods()[0]
            for pid in sum(processes(victim, "store").values(), []):
                os.kill(pid, signal.SIGKILL)
            eventually("two replicas", healthy, 90)
            delete("pods", pods()[0]["metadata"]["name"], place, grace=0)
            eventually("two replicas", healthy, 90)
            database.stop("immediate")
            time.sleep(2)
            database.start()
            eventually("two replicas", healthy, 90)
            count = len(writes)
            time.sleep(3)
            stopped.set()
            for writer in writers:
                writer.join()
            require(count and len(writes) > count, "nothing was acknowledged, or nothing after the database came back")
            # A write that was not acknowledged may have been made: what is there is the acknowledged one or a later.
            for name, mark in acknowledged.items():
                status, _, body = rig.http_call("GET", where + name)
                there = json.loads(body)["metadata"]["mark"] if status == 200 else None
                require(there is not None and there >= mark, f"{name}: {mark} was acknowledged, and {there} is there")
            return f"{len(writes)} writes, {len(refusals)} refused meanwhile, nothing lost"
        finally:
            HELM4("uninstall", "heir", "--namespace", place, "--wait", check=False)
