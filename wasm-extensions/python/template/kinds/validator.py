"""{{name}}: a validator that refuses messages whose payload is too long."""

from dataclasses import dataclass

from beamline import Call, Message, Problem, Verdict, accept, debug, failure, problem, reject, validator


@dataclass(frozen=True)
class Config:
    """What a policy, or the registry record, may set."""

    max_chars: int = 10_000
    """The longest payload that may pass, in characters of JSON."""


def check(config: Config) -> list[Problem]:
    """Called when a policy is loaded. Tells every mistake in the configuration, with its place."""
    whole = isinstance(config.max_chars, int) and config.max_chars > 0
    return [] if whole else [problem("/max_chars", "expected a whole number from 1")]


def validate(call: Call[Config], message: Message) -> Verdict:
    """Called for every message, each time in a fresh instance."""
    if message.message_type == "unknown":
        # A failure, not a rejection: the policy's `on_fail` decides either way.
        raise failure("no_message_type", "the message does not say what it is")
    chars, max_chars = len(message.payload_text), call.config.max_chars
    debug(f"{chars} characters of {max_chars}")
    if chars <= max_chars:
        return accept()
    return reject(
        f"the payload has {chars} characters, {max_chars} are allowed",
        {"chars": chars, "max_chars": max_chars},
    )


WitWorld = validator(Config, check, validate)
