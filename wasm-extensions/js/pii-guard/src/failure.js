/** How the guard says that it could not do its work, and how its own mistakes are told. */

import { write } from 'beamline:extension/log@0.1.0';

/**
 * What to throw for the error of a `result<_, failure>`. It is no `Error`: those are mistakes in
 * the code, and end the component.
 *
 * @param {string} code a short name in snake case
 * @param {string} message one sentence for people, without personal data
 */
export function failure(code, message) {
  return { code, message };
}

/**
 * A mistake in the code becomes a line in the host's log, and then a trap.
 *
 * @template {Function} F
 * @param {F} run
 * @returns {F}
 */
export function telling(run) {
  return (...given) => {
    try {
      return run(...given);
    } catch (thrown) {
      if (thrown instanceof Error) write('error', `${thrown}\n${thrown.stack}`);
      throw thrown;
    }
  };
}
