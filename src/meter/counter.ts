// One cumulative energy counter in a file, in microjoules: where it is, why it cannot be read, and its readings as joules that only
// grow, across wraps. What cannot be explained as a wrap is a reset, after which nothing is known.
import { readFileSync } from 'node:fs';
import type { MissingState } from '../measure/quantity.js';

/** Why there is no number, and the one line that changes it, where there is one. */
export interface Refusal {
  state: MissingState;
  reason: string;
  fix: string | null;
}

export interface CounterFile {
  /** `package-0`, `package-0-die-1`, `package-0/dram`. */
  domain: string;
  source: 'powercap' | 'hwmon';
  scope: string;
  path: string;
  /** The counter starts again at 0 after this many joules; null when it does not wrap or that is not known. */
  rangeJoules: number | null;
  /** What makes the file readable where permission lacks. */
  deniedFix: string;
}

/** Counters of one source, each with the reason why it cannot be read or null; or the reason why there are none. */
export type Found = { counters: { file: CounterFile; refusal: Refusal | null }[] } | { refusal: Refusal };

export const packageScope = 'CPU packages: the whole socket, not this process alone';
export const dramScope = 'memory of a CPU package: all of it, not this process alone';

/** More than any socket draws, watts: what tells a wrap from a reset. */
const mostWatts = 2000;
/** Counters publish in steps of milliseconds, so that a step may carry more than the time between two readings, seconds. */
const slackSeconds = 0.1;

/** Joules, as the file says. Throws what the file system says, or an error that quotes what is no number. */
function readJoules(path: string): number {
  const text = readFileSync(path, 'utf8').trim();
  if (!/^\d+$/.test(text)) throw new Error(`${path} holds "${text.slice(0, 40)}", expected microjoules`);
  return Number(text) * 1e-6;
}

function refusalOf(error: unknown, { path, deniedFix }: Pick<CounterFile, 'path' | 'deniedFix'>): Refusal {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM')
    return { state: 'denied', reason: `${path} may not be read (${code})`, fix: deniedFix };
  return { state: 'unavailable', reason: code ? `${path} cannot be read (${code})` : message, fix: null };
}

/** Whether the file can be read now: null when it can. */
export function tryCounter(file: CounterFile): Refusal | null {
  try {
    readJoules(file.path);
    return null;
  } catch (error) {
    return refusalOf(error, file);
  }
}

/** Readings at most; the middle goes first, as the energy between two moments is decided around them. */
const most = 4096;
const kept = 1024;

/** Readings of one counter. Time is seconds of one monotonic clock and ascends from call to call. */
export class Recorder {
  readonly seconds: number[] = [];
  /** Joules since the first reading. */
  readonly values: number[] = [];
  /** How often the counter moved. */
  ticks = 0;
  /** Set once the readings contradict themselves: nothing is recorded from then on. */
  lost: string | null = null;
  /** The last reading that failed, and how many did. */
  failure: Refusal | null = null;
  failures = 0;
  first: { raw: number; time: number } | null = null;
  private last: { raw: number; time: number } | null = null;

  constructor(readonly file: CounterFile) {}

  poll(time: number): void {
    if (this.lost !== null) return;
    let raw: number;
    try {
      raw = readJoules(this.file.path);
    } catch (error) {
      this.failures++;
      this.failure = refusalOf(error, this.file);
      return;
    }
    const step = this.last === null ? 0 : this.step(this.last, raw, time);
    if (step === null) return;
    this.first ??= { raw, time };
    this.last = { raw, time };
    if (step > 0) this.ticks++;
    this.seconds.push(time);
    this.values.push((this.values.at(-1) ?? 0) + step);
    if (this.seconds.length > most) {
      this.seconds.splice(kept, kept);
      this.values.splice(kept, kept);
    }
  }

  /** Joules since the reading before; null, with `lost` set, when that cannot be known. */
  private step(before: { raw: number; time: number }, raw: number, time: number): number | null {
    const range = this.file.rangeJoules;
    const elapsed = time - before.time;
    if (range !== null && elapsed * mostWatts > range) {
      this.lost = `no reading for ${elapsed.toFixed(1)} s, in which ${this.file.path} may have wrapped unseen`;
      return null;
    }
    if (raw >= before.raw) return raw - before.raw;
    const wrapped = range === null ? Number.NaN : raw + range - before.raw;
    if (wrapped >= 0 && wrapped <= Math.max(elapsed, slackSeconds) * mostWatts) return wrapped;
    this.lost = `${this.file.path} went back from ${before.raw} J to ${raw} J and did not wrap: it was reset`;
    return null;
  }
}
