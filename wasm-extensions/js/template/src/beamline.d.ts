/** The types of beamline.js. */

/** Any JSON value. `JSON.parse` rounds integers above 2^53. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** The circumstances of one call. Every call meets a fresh instance. */
export interface Call<Config> {
  readonly tenantId: string;
  readonly policyId: string;
  /** Empty where the request belongs to none. */
  readonly traceId: string;
  readonly requestId: string;
  /** Milliseconds until the host ends the call. */
  readonly remainingMs: number;
  /** The defaults, with the record's and the policy's configuration laid over them. */
  readonly config: Config;
  readonly context: JsonObject;
}

export interface Message {
  readonly messageId: string;
  /** `unknown` where the caller did not say. */
  readonly messageType: string;
  /** The payload as JSON text: to look at it is cheaper than to parse it. */
  readonly payloadText: string;
  readonly payload: Json;
  readonly metadata: JsonObject;
}

export interface Problem {
  /** A JSON Pointer into the configuration. */
  readonly path: string;
  readonly message: string;
}

export interface Failure {
  /** In snake case. */
  readonly code: string;
  readonly message: string;
}

/** Made by `accept` and `reject`. */
export type Verdict = { tag: 'accept' } | { tag: 'reject'; val: { reason: string; details: string } };

/** What a pre-processor changes; what is left out stays as it is. */
export interface PreOutput {
  message?: { messageId?: string; messageType?: string; payload?: Json; metadata?: JsonObject };
  /** Merged over the context. */
  context?: JsonObject;
}

export interface Candidate {
  readonly providerId: string;
  readonly weight: number;
  readonly breaker: 'closed' | 'half-open' | 'open';
  /** Absent where none was seen. */
  readonly latencyMs?: number | null;
  readonly errorRate?: number | null;
  readonly cost?: number | null;
}

export interface Score {
  providerId: string;
  /** Finite, 0 or more: the weight is multiplied by it. */
  factor: number;
}

export interface Decision {
  readonly providerId: string;
  /** `sticky`, `weighted`, `retry`, `fallback` and the like. */
  readonly reason: string;
  readonly priority: number;
}

/** What all extensions have. */
interface Extension<Config> {
  /** Every key, with its default; a configuration may have no other, and none of another type. */
  defaults: Config;
  /** Every mistake in a configuration whose types are right. Called when a policy is loaded. */
  check?(config: Config): Problem[];
}

type Checks = { checkConfig(config: string): void };

export const log: Record<'debug' | 'info' | 'warn' | 'error', (line: string) => void>;
export function failure(code: string, message: string): Failure;
export function problem(path: string, message: string): Problem;
export function accept(): Verdict;
export function reject(reason: string, details?: JsonObject): Verdict;

export function validator<Config extends object>(
  extension: Extension<Config> & { validate(call: Call<Config>, message: Message): Verdict },
): Checks & { validate(call: object, message: object): Verdict };

export function preProcessor<Config extends object>(
  extension: Extension<Config> & { process(call: Call<Config>, message: Message): PreOutput },
): Checks & { process(call: object, message: object): { message: object | null; context: string | null } };

export function scorer<Config extends object>(
  extension: Extension<Config> & { score(call: Call<Config>, message: Message, candidates: Candidate[]): Score[] },
): Checks & { score(call: object, message: object, candidates: Candidate[]): Score[] };

export function postProcessor<Config extends object>(
  extension: Extension<Config> & { process(call: Call<Config>, decision: Decision): JsonObject | undefined },
): Checks & { process(call: object, decision: Decision): string | null };
