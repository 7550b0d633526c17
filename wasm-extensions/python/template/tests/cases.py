"""Runs the cases of a YAML file, as `beamline-sidecar ext test` does, on the class itself."""

import json
import unittest

import yaml
from componentize_py_types import Err
from wit_world.imports import types


def suite_of(path, extension):
    """One test for each case, as a `unittest.TestCase`."""
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file)
    kind, cases = content["extension"], content["cases"]
    assert cases, f"{path} has no cases"
    tests = {
        f"test_{number:02} {case['name']}": run(kind, extension, case) for number, case in enumerate(cases, 1)
    }
    return type("Cases", (unittest.TestCase,), tests)


def run(kind, extension, case):
    def test(self):
        expect = case["expect"]
        message, context, config = case.get("message", {}), case.get("context", {}), dumps(case.get("config", {}))
        problems = [problem.path for problem in error_of(extension.check_config, config) or []]
        if "config_problems" in expect:
            self.assertEqual(sorted(problems), sorted(expect["config_problems"]))
            return
        self.assertEqual(problems, [], "the configuration has mistakes")
        call = types.Call(context.get("tenant_id", "tenant"), "policy", "", "", dumps(context), config, 100)
        sent = types.Message(
            message.get("message_id", ""),
            message.get("message_type", "unknown"),
            dumps(message.get("payload")),
            dumps(message.get("metadata", {})),
        )
        work = {
            "pre": lambda: extension.process(call, sent),
            "validator": lambda: extension.validate(call, sent),
            "scorer": lambda: extension.score(call, sent, [candidate(item) for item in case["candidates"]]),
            "post": lambda: extension.process(call, decision(case.get("decision", {}))),
        }[kind]
        if "failure" in expect:
            self.assertEqual(getattr(error_of(work), "code", None), expect["failure"])
            return
        answer = work()
        {"pre": changes, "validator": verdict, "scorer": scores, "post": metadata}[kind](self, answer, expect, sent)

    return test


def candidate(given):
    breaker = given.get("breaker", "closed").upper()
    return types.Candidate(
        given["provider_id"],
        given.get("weight", 1.0),
        types.BreakerState[breaker],
        given.get("latency_ms"),
        given.get("error_rate"),
        given.get("cost"),
    )


def decision(given):
    return types.Decision(
        given.get("provider_id", "provider"), given.get("reason", "weighted"), given.get("priority", 50)
    )


def verdict(self, answer, expect, _sent):
    if expect == "accept":
        self.assertEqual(answer, types.Verdict_Accept())
        return
    self.assertIsInstance(answer, types.Verdict_Reject)
    reject = {} if expect == "reject" else expect["reject"] or {}
    if "reason" in reject:
        self.assertEqual(answer.value.reason, reject["reason"])
    if "details" in reject:
        self.assertEqual(json.loads(answer.value.details), reject["details"])


def changes(self, answer, expect, sent):
    """Of the message and the context only what is named is expected to change."""
    expect = {} if expect == "unchanged" else expect
    self.assertEqual(json.loads(answer.context or "{}"), expect.get("context", {}))
    fields = ["message_id", "message_type"]

    def plain(message):
        texts = {"payload": json.loads(message.payload), "metadata": json.loads(message.metadata)}
        return {name: getattr(message, name) for name in fields} | texts

    self.assertEqual(plain(answer.message or sent), plain(sent) | expect.get("message", {}))


def scores(self, answer, expect, _sent):
    got = {score.provider_id: score.factor for score in answer}
    self.assertEqual(got.keys(), expect["scores"].keys())
    for provider, factor in expect["scores"].items():
        self.assertAlmostEqual(got[provider], factor, places=6)


def metadata(self, answer, expect, _sent):
    wanted = {} if expect == "unchanged" else expect["metadata"] or {}
    self.assertEqual(json.loads(answer or "{}"), wanted)


def error_of(call, *given):
    """What a method raises as the error of its `result`."""
    try:
        call(*given)
    except Err as error:
        return error.value
    return None


def dumps(value):
    return json.dumps(value, ensure_ascii=False)
