"""{{name}}: a validator that refuses messages whose payload is too long."""

import json
from functools import wraps
from traceback import walk_tb

from componentize_py_types import Err
from wit_world import WitWorld as Validator
from wit_world.imports import log
from wit_world.imports.types import Failure, Problem, Rejection, Verdict_Accept, Verdict_Reject

DEFAULT_MAX_CHARS = 10_000


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
    def check_config(self, config):
        """Called when a policy is loaded. Raises every mistake in the configuration, with its place."""
        problems = []
        for key, value in json.loads(config).items():
            path = "/" + key.replace("~", "~0").replace("/", "~1")
            if key != "max_chars":
                problems.append(Problem(path, "unknown key, expected max_chars"))
            elif type(value) is not int or value < 1:
                problems.append(Problem(path, "expected a whole number from 1"))
        if problems:
            raise Err(problems)

    @telling
    def validate(self, call, message):
        """Called for every message, each time in a fresh instance."""
        max_chars = json.loads(call.config).get("max_chars", DEFAULT_MAX_CHARS)
        if message.message_type == "unknown":
            # A failure, not a rejection: the policy's `on_fail` decides either way.
            raise Err(Failure("no_message_type", "the message does not say what it is"))
        chars = len(message.payload)
        log.write(log.Level.DEBUG, f"{chars} characters of {max_chars}")
        if chars <= max_chars:
            return Verdict_Accept()
        reason = f"the payload has {chars} characters, {max_chars} are allowed"
        return Verdict_Reject(Rejection(reason, json.dumps({"chars": chars, "max_chars": max_chars})))
