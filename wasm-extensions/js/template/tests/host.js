/** A host for native tests: `node --import ./tests/host.js`. What was logged is in `lines`. */

import { register } from 'node:module';

globalThis.lines = [];

const log = 'export const write = (level, message) => globalThis.lines.push(`${level}: ${message}`);';
const sources = { 'beamline:extension/log@0.1.0': log };

const hooks = `
  const sources = ${JSON.stringify(sources)};
  export async function resolve(name, context, next) {
    if (!(name in sources)) return next(name, context);
    return { url: 'data:text/javascript,' + encodeURIComponent(sources[name]), shortCircuit: true };
  }
`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
