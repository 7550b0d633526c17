/** {{name}}: a validator that refuses messages whose payload is too long. */

import { write } from 'beamline:extension/log@0.1.0';

const DEFAULT_MAX_CHARS = 10_000;

/** A mistake in the code becomes a line in the host's log, and then a trap. */
const telling = (run) => (...given) => {
  try {
    return run(...given);
  } catch (thrown) {
    if (thrown instanceof Error) write('error', `${thrown}\n${thrown.stack}`);
    throw thrown;
  }
};

/** Called when a policy is loaded. Throws every mistake in the configuration, each with its place. */
export const checkConfig = telling((config) => {
  const problems = [];
  for (const [key, value] of Object.entries(JSON.parse(config))) {
    const path = `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`;
    if (key !== 'max_chars') problems.push({ path, message: 'unknown key, expected max_chars' });
    else if (!Number.isInteger(value) || value < 1) problems.push({ path, message: 'expected a whole number from 1' });
  }
  if (problems.length > 0) throw problems;
});

/** Called for every message, each time in a fresh instance. */
export const validate = telling((call, message) => {
  const { max_chars: maxChars = DEFAULT_MAX_CHARS } = JSON.parse(call.config);
  if (message.messageType === 'unknown') {
    // A failure, not a rejection: the policy's `on_fail` decides either way.
    throw { code: 'no_message_type', message: 'the message does not say what it is' };
  }
  const chars = message.payload.length;
  write('debug', `${chars} characters of ${maxChars}`);
  if (chars <= maxChars) return { tag: 'accept' };
  const reason = `the payload has ${chars} characters, ${maxChars} are allowed`;
  return { tag: 'reject', val: { reason, details: JSON.stringify({ chars, max_chars: maxChars }) } };
});
