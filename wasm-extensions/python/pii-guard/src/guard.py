"""A validator that refuses messages with personal data: the twin of `../../../pii-guard`, and of
`../../../js/pii-guard`. `../../../tests/pii-guard.yaml` holds for all three.

The host makes a fresh instance for every call. An `Err` that is raised becomes the error of the
`result`; any other exception is a mistake in the code, and a trap.
"""

import json
from functools import wraps
from traceback import walk_tb

from componentize_py_types import Err
from wit_world import WitWorld as Validator
from wit_world.imports import log
from wit_world.imports.types import Failure, Problem, Rejection, Verdict_Accept, Verdict_Reject

import config
from fields import shown, visit
from json_text import UnexpectedJson, read_json
from personal_data import KINDS, find, is_allowed

# The most places that are reported for a kind.
PLACES = 8


def telling(run):
    """A mistake in the code becomes a line in the host's log, and then a trap."""

    @wraps(run)
    def told(*given):
        try:
            return run(*given)
        except Err:
            raise
        except Exception as error:
            # `format_exc` would read the source files, which are not there.
            frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in walk_tb(error.__traceback__)]
            log.write(log.Level.ERROR, f"{type(error).__name__}: {error}, from {', '.join(frames)}")
            raise

    return told


class WitWorld(Validator):
    @telling
    def check_config(self, config_text):
        problems = config.problems_of(config_text)
        if problems:
            raise Err([Problem(path, message) for path, message in problems])

    @telling
    def validate(self, call, message):
        settings, problems = config.read_config(call.config)
        if problems:
            raise Err(Failure("invalid_config", "the configuration cannot be read"))
        try:
            payload = read_json(message.payload)
        except UnexpectedJson as error:
            raise Err(Failure("unexpected_json", str(error))) from None
        return verdict(examine(settings, payload), settings)


def examine(settings, payload):
    """What was found: how many of each kind, and where, never what."""
    findings = {}

    def see(place, text):
        for kind, found in find(text, settings.kinds):
            if is_allowed(found, settings.allow):
                continue
            count, places = findings.get(kind, (0, []))
            findings[kind] = (count + 1, places)
            if len(places) < PLACES:
                where = shown(place)
                if where not in places:
                    places.append(where)

    visit(payload, settings.fields, settings.ignore, see)
    return findings


def verdict(findings, settings):
    too_many = [
        (kind, *findings[kind])
        for kind in KINDS
        if kind in findings and findings[kind][0] > settings.thresholds.get(kind, 0)
    ]
    if not too_many:
        return Verdict_Accept()
    named = ", ".join(f"{kind} ({count})" for kind, count, _ in too_many)
    found = [{"count": count, "fields": places, "kind": kind} for kind, count, places in too_many]
    details = json.dumps({"found": found}, ensure_ascii=False, separators=(",", ":"))
    return Verdict_Reject(Rejection(f"personal data in the message: {named}", details))
