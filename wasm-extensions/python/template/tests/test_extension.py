import os
import unittest
from unittest import mock

from wit_world.imports import log

from cases import suite_of
from extension import WitWorld

EXTENSION = WitWorld()
Cases = suite_of(os.path.join(os.path.dirname(__file__), "cases.yaml"), EXTENSION)

# There is no host to log to.
log.write = mock.Mock()


class Extension(unittest.TestCase):
    def test_a_mistake_in_the_code_is_told_in_the_log(self):
        with self.assertRaises(ValueError):
            EXTENSION.check_config("{")
        level, line = log.write.call_args.args
        self.assertEqual(level, log.Level.ERROR)
        self.assertIn("JSONDecodeError", line)
