"""{{name}}: a post-processor that adds a label to decisions, for later readers."""

from dataclasses import dataclass, field
from typing import Optional

from beamline import Call, Decision, Json, Problem, post_processor, problem


@dataclass(frozen=True)
class Config:
    """What a policy, or the registry record, may set."""

    key: str = "route"
    """Where the decision's metadata has the label."""
    unless: list[str] = field(default_factory=list)
    """Decisions that were made so are not labelled, such as `sticky`."""


def check(config: Config) -> list[Problem]:
    """Called when a policy is loaded. Tells every mistake in the configuration, with its place."""
    return [] if config.key else [problem("/key", "name a key, or leave it out")]


def process(call: Call[Config], decision: Decision) -> Optional[dict[str, Json]]:
    """What is added to the decision's metadata, or nothing."""
    if decision.reason in call.config.unless:
        return None
    return {call.config.key: f"{decision.provider_id}/{decision.reason}"}


WitWorld = post_processor(Config, check, process)
