"""What every extension needs: JSON texts as values, configurations as dataclasses, and errors as the sidecar expects them.

An extension is made of functions, by `validator`, `pre_processor`, `scorer` or `post_processor`:

    WitWorld = validator(Config, check, validate)
"""

import json
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from traceback import walk_tb
from typing import Any, Callable, Generic, Optional, TypeVar

import wit_world
from componentize_py_types import Err
from wit_world.imports import log, types
from wit_world.imports.types import Candidate, Decision, Failure, Problem, Rejection, Score

Json = Any
"""What `json.loads` makes of a text."""
Verdict = types.Verdict
Config = TypeVar("Config")


@dataclass(frozen=True)
class Call(Generic[Config]):
    """The circumstances of one call. Every call meets a fresh instance."""

    tenant_id: str
    policy_id: str
    trace_id: str
    request_id: str
    remaining_ms: int
    config: Config
    context_text: str

    @property
    def context(self) -> dict[str, Json]:
        return json.loads(self.context_text)


@dataclass(frozen=True)
class Message:
    """The message. To look at a text is cheaper than to parse it."""

    message_id: str
    message_type: str
    payload_text: str
    metadata_text: str

    @property
    def payload(self) -> Json:
        return json.loads(self.payload_text)

    @property
    def metadata(self) -> dict[str, Json]:
        return json.loads(self.metadata_text)


@dataclass(frozen=True)
class PreOutput:
    """What a pre-processor changes; what is left out stays as it is."""

    message: Optional[Message] = None
    context: Optional[dict[str, Json]] = None
    """Merged over the context."""


def failure(code: str, message: str) -> Err:
    """That the extension cannot do its work, to be raised: the policy decides what follows."""
    return Err(Failure(code, message))


def problem(path: str, message: str) -> Problem:
    """A mistake in a configuration, at a JSON Pointer such as `/words/0`."""
    return Problem(path, message)


def accept() -> Verdict:
    """The message may pass."""
    return types.Verdict_Accept()


def reject(reason: str, details: Optional[dict[str, Json]] = None) -> Verdict:
    """The message may not pass, for a reason that the caller is told."""
    return types.Verdict_Reject(Rejection(reason, json.dumps(details or {})))


def debug(line: str) -> None:
    """A line in the host's log: no personal data, no secrets. So are `info` and `warn`."""
    log.write(log.Level.DEBUG, line)


def info(line: str) -> None:
    log.write(log.Level.INFO, line)


def warn(line: str) -> None:
    log.write(log.Level.WARN, line)


def validator(
    config: type[Config],
    check: Callable[[Config], list[Problem]],
    validate: Callable[[Call[Config], Message], Verdict],
) -> type:
    return _world(config, check, "validate", lambda call, message: validate(_call(config, call), _message(message)))


def pre_processor(
    config: type[Config],
    check: Callable[[Config], list[Problem]],
    process: Callable[[Call[Config], Message], PreOutput],
) -> type:
    def answer(call: types.Call, message: types.Message) -> types.PreOutput:
        output = process(_call(config, call), _message(message))
        changed = output.message and types.Message(
            output.message.message_id,
            output.message.message_type,
            output.message.payload_text,
            output.message.metadata_text,
        )
        return types.PreOutput(changed, None if output.context is None else json.dumps(output.context))

    return _world(config, check, "process", answer)


def scorer(
    config: type[Config],
    check: Callable[[Config], list[Problem]],
    score: Callable[[Call[Config], Message, list[Candidate]], list[Score]],
) -> type:
    return _world(
        config,
        check,
        "score",
        lambda call, message, candidates: score(_call(config, call), _message(message), candidates),
    )


def post_processor(
    config: type[Config],
    check: Callable[[Config], list[Problem]],
    process: Callable[[Call[Config], Decision], Optional[dict[str, Json]]],
) -> type:
    def answer(call: types.Call, decision: Decision) -> Optional[str]:
        metadata = process(_call(config, call), decision)
        return None if metadata is None else json.dumps(metadata)

    return _world(config, check, "process", answer)


def _world(config: type, check: Callable, name: str, answer: Callable) -> type:
    """The class that the component exports."""
    methods = {
        "check_config": lambda self, text: _check(config, check, text),
        name: lambda self, *given: answer(*given),
    }
    return type("WitWorld", (wit_world.WitWorld,), {name: _telling(run) for name, run in methods.items()})


def _telling(run: Callable) -> Callable:
    """A mistake in the code becomes a line in the host's log, and then a trap."""

    @wraps(run)
    def told(*given: Any) -> Any:
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


def _defaults(config: type) -> dict[str, Json]:
    return {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(config)
    }


def _check(config: type, check: Callable, text: str) -> None:
    """Raises every mistake: unknown keys, values of other types than their defaults, and what `check` finds."""
    given, defaults = json.loads(text), _defaults(config)
    problems, typed = [], True
    for key, value in given.items():
        path = "/" + key.replace("~", "~0").replace("/", "~1")
        if key not in defaults:
            problems.append(Problem(path, f"unknown key, expected {', '.join(defaults)}"))
        elif _kind(value) != _kind(defaults[key]):
            typed = False
            problems.append(Problem(path, f"expected a {_kind(defaults[key])}, not a {_kind(value)}"))
    # The extension's own check may rely on the types.
    if typed:
        problems += check(_config(config, given))
    if problems:
        raise Err(problems)


def _kind(value: Json) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), "null")


def _config(config: type[Config], given: dict[str, Json]) -> Config:
    known = {field.name for field in fields(config)}
    return config(**{key: value for key, value in given.items() if key in known})


def _call(config: type[Config], call: types.Call) -> Call[Config]:
    return Call(
        call.tenant_id,
        call.policy_id,
        call.trace_id,
        call.request_id,
        call.remaining_ms,
        _config(config, json.loads(call.config)),
        call.context,
    )


def _message(message: types.Message) -> Message:
    return Message(message.message_id, message.message_type, message.payload, message.metadata)
