#!/usr/bin/env python3
"""Runs the cases on a real node, one after the other: `make test-k8s`. Arguments are parts of names: only such cases are run.

A node must be there (tests/kubernetes/node.sh up), and this must run in its network (node.sh run)."""

import importlib
import sys
import time
import traceback

import rig

# In this order: what comes later builds upon what comes first.
MODULES = ["install", "ways", "admission", "traffic", "crashes", "supply", "limits", "documented"]

# What no machine of ours can show; docs/kubernetes.md says so too.
NOT_HERE = {
    "cgroup v2": "this kernel may mount v1 only: the limits are seen as this node has them",
    "several nodes": "the node is one: spreading over zones, and a node that is lost, are rendered and validated, not run",
    "an enforced NetworkPolicy": "the bridge plugin enforces none: they are rendered and validated, not run",
}


def main():
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for module in MODULES:
        importlib.import_module(module)
    chosen = [case for case in rig.cases if not wanted or any(part in f"{case.__module__}::{case.__name__}" for part in wanted)]
    if "--list" in sys.argv:
        print("\n".join(f"{case.__module__}::{case.__name__}" for case in chosen))
        return
    rig.start_common()
    begun, failed, skipped = time.monotonic(), [], []
    for case in chosen:
        name, from_ = f"{case.__module__}::{case.__name__}", time.monotonic()
        rig.collector.forget()
        try:
            said = case()
            told = "ok"
        except rig.Skipped as reason:
            said, told = str(reason), "SKIPPED"
            skipped.append(name)
        except Exception as error:
            told, said = "FAILED", None
            failed.append(name)
            print(f"--- {name}\n{error}", file=sys.stderr)
            if not isinstance(error, (rig.Failed, rig.ApiError)):
                traceback.print_exc()
        print(f"{told:7} {time.monotonic() - from_:6.1f} s  {name}{f': {said}' if said else ''}", flush=True)
    rig.end_common()
    for what, why in NOT_HERE.items():
        print(f"NOT RUN           {what}: {why}")
    print(f"kubernetes: {len(chosen) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped, "
          f"{time.monotonic() - begun:.0f} s")
    sys.exit(1 if failed or not chosen else 0)


if __name__ == "__main__":
    main()
