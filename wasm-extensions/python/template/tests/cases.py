"""Runs the cases of a YAML file, as `beamline-sidecar ext test` does, on the class itself."""

import json
import unittest

import yaml
from componentize_py_types import Err
from wit_world.imports.types import Call, Message, Verdict_Accept, Verdict_Reject


def suite_of(path, extension):
    """One test for each case, as a `unittest.TestCase`."""
    with open(path, encoding="utf-8") as file:
        cases = yaml.safe_load(file)["cases"]
    assert cases, f"{path} has no cases"
    tests = {f"test_{number:02} {case['name']}": run(extension, case) for number, case in enumerate(cases, 1)}
    return type("Cases", (unittest.TestCase,), tests)


def run(extension, case):
    def test(self):
        expect = case["expect"]
        message, context, config = case.get("message", {}), case.get("context", {}), dumps(case.get("config", {}))
        problems = [problem.path for problem in error_of(extension.check_config, config) or []]
        if "config_problems" in expect:
            self.assertEqual(problems, expect["config_problems"])
            return
        self.assertEqual(problems, [], "the configuration has mistakes")
        call = Call(context.get("tenant_id", "tenant"), "policy", "", "", dumps(context), config, 100)
        sent = Message(
            message.get("message_id", ""),
            message.get("message_type", "unknown"),
            dumps(message.get("payload")),
            dumps(message.get("metadata", {})),
        )
        if "failure" in expect:
            self.assertEqual(getattr(error_of(extension.validate, call, sent), "code", None), expect["failure"])
            return
        verdict = extension.validate(call, sent)
        if expect == "accept":
            self.assertEqual(verdict, Verdict_Accept())
            return
        self.assertIsInstance(verdict, Verdict_Reject)
        reject = expect["reject"] or {}
        if "reason" in reject:
            self.assertEqual(verdict.value.reason, reject["reason"])
        if "details" in reject:
            self.assertEqual(json.loads(verdict.value.details), reject["details"])

    return test


def error_of(call, *given):
    """What a method raises as the error of its `result`."""
    try:
        call(*given)
    except Err as error:
        return error.value
    return None


def dumps(value):
    return json.dumps(value, ensure_ascii=False)
