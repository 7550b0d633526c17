import os
import unittest
from unittest import mock

from wit_world.imports import log
from wit_world.imports.types import Call, Message, Verdict_Accept, Verdict_Reject

from guard import WitWorld
from json_text import Integer, Members, read_json
from personal_data import KINDS, find

from cases import error_of, suite_of

GUARD = WitWorld()
Cases = suite_of(os.path.join(os.path.dirname(__file__), "../../../tests/pii-guard.yaml"), GUARD)


def validate(payload, config="{}"):
    return GUARD.validate(Call("tenant", "policy", "", "", "{}", config, 100), Message("", "chat", payload, "{}"))


class Guard(unittest.TestCase):
    def test_what_the_host_would_not_read_is_a_failure_that_does_not_repeat_it(self):
        def nested(levels):
            return "[" * levels + "]" * levels

        self.assertEqual(validate(nested(127)), Verdict_Accept())
        self.assertEqual(validate('["%s\\\\", "\\""]' % ("[" * 200)), Verdict_Accept())
        texts = ['"4111111111111111', '"\\ud800"', "[1,]", '{"a" 1}', "nul", "1 2", "01", "", "NaN", '"\n"']
        for payload in [nested(128), nested(100_000), '{"a":' * 128 + "1" + "}" * 128, *texts]:
            with self.subTest(payload[:20]):
                failure = error_of(validate, payload)
                self.assertEqual(failure.code, "unexpected_json")
                self.assertNotIn("4111", failure.message)

    def test_a_configuration_that_cannot_be_read_is_a_failure(self):
        self.assertEqual(error_of(validate, "null", '{"kinds":["passport"]}').code, "invalid_config")

    def test_problems_are_bounded_and_tell_of_what_is_no_object(self):
        def problems(config):
            return [problem.path for problem in error_of(GUARD.check_config, config)]

        many = ",".join(f'"k{index}": {index}' for index in range(100))
        self.assertEqual(len(problems("{%s}" % many)), 32)
        self.assertEqual(problems("7"), [""])
        self.assertEqual(problems("{"), [""])
        self.assertEqual(problems('{"__class__": 1}'), ["/__class__"])

    def test_json_is_read_as_it_was_written(self):
        text = ' {"b\\"\\\\": ["\\u00fc\\\\", true, null, 1.0, {}, []], "1": "x", "1": -0} '
        members = [('b"\\', ["ü\\", True, None, 1.0, Members(), []]), ("1", "x"), ("1", Integer("-0"))]
        self.assertEqual(read_json(text), Members(members))
        self.assertEqual(read_json("9" * 5000), Integer("9" * 5000))
        for text in ("1e3", "1.0", "1e999"):
            self.assertIsInstance(read_json(text), float)

    def test_keys_that_are_written_twice_are_both_looked_at(self):
        verdict = validate('{"a": "a@b.io", "0": "a@b.io", "a": "x"}')
        self.assertEqual(verdict.value.details, '{"found":[{"count":2,"fields":["/a","/0"],"kind":"email"}]}')

    def test_a_place_is_told_in_both_spellings_of_an_index_and_none_that_is_no_index(self):
        def is_refused(field):
            return isinstance(validate('["x", "a@b.io"]', '{"fields": ["%s"]}' % field), Verdict_Reject)

        for field in ("/1", "/01", "/+1", "/*"):
            self.assertTrue(is_refused(field), field)
        for field in ("/1.0", "/-1", "/", "/1/", "/²", "/١", "/" + "1" * 5000):
            self.assertFalse(is_refused(field), field)

    def test_no_text_makes_a_scan_slow_or_break(self):
        for piece in ("4", "4 ", "@", "a@", "a.", "+", "00", "0 ", "(", "AB ", "-", "12-", "1-2", "😀@", "123-45-6789-"):
            list(find(piece * (100_000 // len(piece)), KINDS))

    def test_a_mistake_in_the_code_is_told_in_the_log(self):
        with mock.patch.object(log, "write") as write, self.assertRaises(AttributeError):
            GUARD.validate(None, None)
        level, line = write.call_args.args
        self.assertEqual(level, log.Level.ERROR)
        self.assertIn("AttributeError", line)


if __name__ == "__main__":
    unittest.main()
