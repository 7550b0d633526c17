/**
 * What every extension needs: JSON texts as values, configurations with defaults, and errors as the sidecar expects them.
 * The types are in beamline.d.ts, which editors find by themselves.
 */

import { write } from 'beamline:extension/log@0.1.0';

/** Lines in the host's log: no personal data, no secrets. */
export const log = {
  debug: (line) => write('debug', line),
  info: (line) => write('info', line),
  warn: (line) => write('warn', line),
  error: (line) => write('error', line),
};

/** That the extension cannot do its work, to be thrown: the policy decides what follows. */
export const failure = (code, message) => ({ code, message });

/** A mistake in a configuration, at a JSON Pointer such as `/words/0`. */
export const problem = (path, message) => ({ path, message });

/** The message may pass. */
export const accept = () => ({ tag: 'accept' });

/** The message may not pass, for a reason that the caller is told. */
export const reject = (reason, details = {}) => ({ tag: 'reject', val: { reason, details: JSON.stringify(details) } });

/** A mistake in the code becomes a line in the host's log, and then a trap. */
const telling = (run) => (...given) => {
  try {
    return run(...given);
  } catch (thrown) {
    if (thrown instanceof Error) log.error(`${thrown}\n${thrown.stack}`);
    throw thrown;
  }
};

const kindOf = (value) => (Array.isArray(value) ? 'list' : value === null ? 'null' : typeof value);

/** Every mistake: unknown keys, values of other types than their defaults, and what the extension's own check finds. */
const checked = (defaults, check) =>
  telling((text) => {
    const config = JSON.parse(text);
    const problems = [];
    let typed = true;
    for (const [key, value] of Object.entries(config)) {
      const path = `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`;
      if (!Object.hasOwn(defaults, key)) {
        problems.push(problem(path, `unknown key, expected ${Object.keys(defaults).join(', ')}`));
      } else if (kindOf(value) !== kindOf(defaults[key])) {
        typed = false;
        problems.push(problem(path, `expected a ${kindOf(defaults[key])}, not a ${kindOf(value)}`));
      }
    }
    // Its own check may rely on the types.
    if (typed) problems.push(...check({ ...defaults, ...config }));
    if (problems.length > 0) throw problems;
  });

const callOf = (defaults, call) => ({
  tenantId: call.tenantId,
  policyId: call.policyId,
  traceId: call.traceId,
  requestId: call.requestId,
  remainingMs: call.remainingMs,
  config: { ...defaults, ...JSON.parse(call.config) },
  /** Parsed when it is asked for. */
  get context() {
    return JSON.parse(call.context);
  },
});

const messageOf = (message) => ({
  messageId: message.messageId,
  messageType: message.messageType,
  payloadText: message.payload,
  get payload() {
    return JSON.parse(message.payload);
  },
  get metadata() {
    return JSON.parse(message.metadata);
  },
});

/** The message with what was changed in it. */
const changed = (message, { messageId, messageType, payload, metadata }) => ({
  messageId: messageId ?? message.messageId,
  messageType: messageType ?? message.messageType,
  payload: payload === undefined ? message.payload : JSON.stringify(payload),
  metadata: metadata === undefined ? message.metadata : JSON.stringify(metadata),
});

const none = () => [];

export const validator = ({ defaults, check = none, validate }) => ({
  checkConfig: checked(defaults, check),
  validate: telling((call, message) => validate(callOf(defaults, call), messageOf(message))),
});

export const preProcessor = ({ defaults, check = none, process }) => ({
  checkConfig: checked(defaults, check),
  process: telling((call, message) => {
    const { message: change, context } = process(callOf(defaults, call), messageOf(message));
    return {
      message: change === undefined ? null : changed(message, change),
      context: context === undefined ? null : JSON.stringify(context),
    };
  }),
});

export const scorer = ({ defaults, check = none, score }) => ({
  checkConfig: checked(defaults, check),
  score: telling((call, message, candidates) => score(callOf(defaults, call), messageOf(message), candidates)),
});

export const postProcessor = ({ defaults, check = none, process }) => ({
  checkConfig: checked(defaults, check),
  process: telling((call, decision) => {
    const metadata = process(callOf(defaults, call), decision);
    return metadata === undefined ? null : JSON.stringify(metadata);
  }),
});
