/** {{name}}: a scorer that favours providers whose calls succeed. */

import { problem, scorer } from './beamline.js';

export const { checkConfig, score } = scorer({
  defaults: {
    /** How much failures count: 0 not at all, 1 in proportion, 2 more than that. */
    strength: 1,
    /** The least factor, so that a provider is still seen when it recovers. */
    floor: 0.05,
  },

  /** Called when a policy is loaded. Tells every mistake in the configuration, each with its place. */
  check: ({ strength, floor }) => [
    ...(strength >= 0 && strength <= 10 ? [] : [problem('/strength', 'write a number from 0 to 10')]),
    ...(floor >= 0 && floor <= 1 ? [] : [problem('/floor', 'write a number from 0 to 1')]),
  ],

  /** One factor for each candidate. Where nothing was seen yet, nothing speaks against a provider. */
  score: ({ config: { strength, floor } }, _message, candidates) =>
    candidates.map(({ providerId, errorRate }) => ({
      providerId,
      factor: Math.max((1 - (errorRate ?? 0)) ** strength, floor),
    })),
});
