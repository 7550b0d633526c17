"""The parts of the benchmark, in the order of the report. Each has a TITLE and `run(lab)`, which gives Markdown."""

from . import bad_guests, bomb_start, cold_start, coverage, deaths, decide, extensions, fresh_calls, hit_rate, lookup, memory, open_loop, paused, publish, sessions

PARTS = {
    "lookup": lookup,
    "decide": decide,
    "fresh-calls": fresh_calls,
    "extensions": extensions,
    "bad-guests": bad_guests,
    "open-loop": open_loop,
    "hit-rate": hit_rate,
    "memory": memory,
    "sessions": sessions,
    "cold-start": cold_start,
    "bomb-start": bomb_start,
    "publish": publish,
    "paused": paused,
    "deaths": deaths,
    "coverage": coverage,
}
