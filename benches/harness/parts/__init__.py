"""The parts of the benchmark, in the order of the report. Each has a TITLE and `run(lab)`, which gives Markdown."""

from . import cold_start, lookup, memory, open_loop, paused, publish

PARTS = {
    "lookup": lookup,
    "open-loop": open_loop,
    "memory": memory,
    "cold-start": cold_start,
    "publish": publish,
    "paused": paused,
}
