// What the finders of counters hand over: where a cumulative energy counter is, what it covers, and why it cannot be read.
import { readFileSync } from 'node:fs';
import type { MissingState } from '../measure/quantity.js';
import { native } from '../native.js';
import type { SourceSpec } from '../native.sources.js';

/** Why there is no number, and the one line that changes it, where there is one. */
export interface Refusal {
  state: MissingState;
  reason: string;
  fix: string | null;
}

export interface CounterFound {
  /** `package-0`, `package-0-die-1`, `package-0/dram`. */
  domain: string;
  source: 'powercap' | 'perf' | 'hwmon';
  /** What it covers, in words. */
  covers: string;
  /** How the addon reads it. */
  spec: SourceSpec;
  /** What makes it readable where permission lacks. */
  deniedFix: string;
  /** Why it cannot be read now; null when it can. */
  refusal: Refusal | null;
}

/** Counters of one source, at least one, or the reason why there are none. */
export type Found = { counters: CounterFound[] } | { refusal: Refusal };

export const packageScope = 'CPU packages: the whole socket, not this process alone';
export const dramScope = 'memory of a CPU package: all of it, not this process alone';

/** The first line of a file, or null when it cannot be read. */
export function line(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

/**
 * Reads a counter, in its own unit, at each call. Throws what the file system says, or an error that says what is no number; for events
 * of perf the error of the addon where there is none.
 */
export function reader(spec: SourceSpec): () => number {
  if (spec.kind === 'file')
    return () => {
      const text = readFileSync(spec.path, 'utf8').trim();
      if (!/^\d+$/.test(text)) throw new Error(`${spec.path} holds "${text.slice(0, 40)}", expected a whole number`);
      return Number(text);
    };
  const { openSource, pollSource, sourceStatus } = native();
  const source = openSource({ ...spec, intervalSeconds: 1e-3 }, true);
  return () => {
    pollSource(source, Number(process.hrtime.bigint()) / 1e9);
    const { trouble, answering, joules } = sourceStatus(source);
    if (!answering) throw Object.assign(new Error(trouble!.reason), { state: trouble!.state });
    return joules;
  };
}

/** Why a counter cannot be read now; null when it can. */
export function tryCounter(spec: SourceSpec, deniedFix: string): Refusal | null {
  try {
    reader(spec)();
    return null;
  } catch (error) {
    const { code = '', message, state } = error as NodeJS.ErrnoException & { state?: MissingState };
    if (state) return { state, reason: message, fix: state === 'denied' ? deniedFix : null };
    const denied = code === 'EACCES' || code === 'EPERM';
    if (denied) return { state: 'denied', reason: `${spec.name} may not be read (${code})`, fix: deniedFix };
    const [first] = message.split('\n');
    return {
      state: 'unavailable',
      reason: /^E[A-Z]+$/.test(code) ? `${spec.name} cannot be read (${code})` : first!,
      fix: null,
    };
  }
}
