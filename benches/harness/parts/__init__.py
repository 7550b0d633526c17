"""The parts of the benchmark, in the order of the report. Each has a TITLE and `run(lab)`, which gives Markdown."""

from . import cold_start, decide, lookup, memory, open_loop, paused, publish, sessions

PARTS = {
    "lookup": lookup,
    "decide": decide,
    "open-loop": open_loop,
    "memory": memory,
    "sessions": sessions,
    "cold-start": cold_start,
    "publish": publish,
    "paused": paused,
}
