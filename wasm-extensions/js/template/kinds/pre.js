/** {{name}}: a pre-processor that adds to the context how long a message is, for a policy's conditions to look at. */

import { preProcessor, problem } from './beamline.js';

export const { checkConfig, process } = preProcessor({
  defaults: {
    /** The key of the context that has it. */
    key: 'length',
    /** From so many characters of JSON a payload is long. */
    long_chars: 4_096,
  },

  /** Called when a policy is loaded. Tells every mistake in the configuration, each with its place. */
  check: ({ key }) => (key === '' ? [problem('/key', 'name a key, or leave it out')] : []),

  /** Called for every message, each time in a fresh instance. To change the message, return `message` too. */
  process: ({ config }, message) => ({
    context: { [config.key]: message.payloadText.length >= config.long_chars ? 'long' : 'short' },
  }),
});
