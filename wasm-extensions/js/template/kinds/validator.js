/** {{name}}: a validator that refuses messages whose payload is too long. */

import { accept, failure, log, problem, reject, validator } from './beamline.js';

export const { checkConfig, validate } = validator({
  defaults: {
    /** The longest payload that may pass, in characters of JSON. */
    max_chars: 10_000,
  },

  /** Called when a policy is loaded. Tells every mistake in the configuration, each with its place. */
  check: ({ max_chars }) =>
    Number.isInteger(max_chars) && max_chars > 0 ? [] : [problem('/max_chars', 'expected a whole number from 1')],

  /** Called for every message, each time in a fresh instance. */
  validate: ({ config }, message) => {
    if (message.messageType === 'unknown') {
      // A failure, not a rejection: the policy's `on_fail` decides either way.
      throw failure('no_message_type', 'the message does not say what it is');
    }
    const chars = message.payloadText.length;
    log.debug(`${chars} characters of ${config.max_chars}`);
    if (chars <= config.max_chars) return accept();
    return reject(`the payload has ${chars} characters, ${config.max_chars} are allowed`, {
      chars,
      max_chars: config.max_chars,
    });
  },
});
