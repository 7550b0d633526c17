"""{{name}}: a scorer that favours providers whose calls succeed."""

from dataclasses import dataclass

from beamline import Call, Candidate, Message, Problem, Score, problem, scorer


@dataclass(frozen=True)
class Config:
    """What a policy, or the registry record, may set."""

    strength: float = 1.0
    """How much failures count: 0 not at all, 1 in proportion, 2 more than that."""
    floor: float = 0.05
    """The least factor, so that a provider is still seen when it recovers."""


def check(config: Config) -> list[Problem]:
    """Called when a policy is loaded. Tells every mistake in the configuration, with its place."""
    problems = []
    if not 0 <= config.strength <= 10:
        problems.append(problem("/strength", "write a number from 0 to 10"))
    if not 0 <= config.floor <= 1:
        problems.append(problem("/floor", "write a number from 0 to 1"))
    return problems


def score(call: Call[Config], _message: Message, candidates: list[Candidate]) -> list[Score]:
    """One factor for each candidate. Where nothing was seen yet, nothing speaks against a provider."""
    strength, floor = call.config.strength, call.config.floor
    return [
        Score(candidate.provider_id, max((1 - (candidate.error_rate or 0)) ** strength, floor))
        for candidate in candidates
    ]


WitWorld = scorer(Config, check, score)
