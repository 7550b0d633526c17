"""{{name}}: a pre-processor that adds to the context how long a message is, for a policy's conditions to look at."""

from dataclasses import dataclass

from beamline import Call, Message, PreOutput, Problem, pre_processor, problem


@dataclass(frozen=True)
class Config:
    """What a policy, or the registry record, may set."""

    key: str = "length"
    """The key of the context that has it."""
    long_chars: int = 4_096
    """From so many characters of JSON a payload is long."""


def check(config: Config) -> list[Problem]:
    """Called when a policy is loaded. Tells every mistake in the configuration, with its place."""
    return [] if config.key else [problem("/key", "name a key, or leave it out")]


def process(call: Call[Config], message: Message) -> PreOutput:
    """Called for every message, each time in a fresh instance. `PreOutput(message=…)` changes the message too."""
    length = "long" if len(message.payload_text) >= call.config.long_chars else "short"
    return PreOutput(context={call.config.key: length})


WitWorld = pre_processor(Config, check, process)
