/** {{name}}: a post-processor that adds a label to decisions, for later readers. */

import { postProcessor, problem } from './beamline.js';

export const { checkConfig, process } = postProcessor({
  defaults: {
    /** Where the decision's metadata has the label. */
    key: 'route',
    /** Decisions that were made so are not labelled, such as `sticky`. @type {string[]} */
    except: [],
  },

  /** Called when a policy is loaded. Tells every mistake in the configuration, each with its place. */
  check: ({ key }) => (key === '' ? [problem('/key', 'name a key, or leave it out')] : []),

  /** What is added to the decision's metadata; nothing where nothing is returned. */
  process: ({ config }, decision) =>
    config.except.includes(decision.reason)
      ? undefined
      : { [config.key]: `${decision.providerId}/${decision.reason}` },
});
