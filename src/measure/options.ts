// Options of measure() and compare(): defaults, and one sentence for each that makes no sense.
import { Device } from '../device.js';
import { KernwattError } from '../errors.js';
import type { Meter } from '../meter/meter.js';
import type { KeptPerformance } from '../metrics/mcr.js';
import { type Clock, clocks } from './record.js';
import { fullStop, quickStop, type StopRule } from './stop.js';

/** What is going on, and how much of this measurement is done (0 to 1). */
export interface MeasureProgress {
  name: string;
  phase: 'check' | 'peaks' | Clock | 'energy';
  done: number;
}

export interface CommonOptions {
  /**
   * `cold` (default): operands rotate through copies that exceed the last-level cache; `hot`: the same operands every time.
   * The record says what was reached.
   */
  cache?: 'cold' | 'hot';
  /** Wanted half width of the median's 95 % interval, relative to the median. Default 0.01, quick 0.05. */
  target?: number;
  /** Longest wall time for each clock, seconds. Default 15, quick 2. */
  maxSeconds?: number;
  /** Fewest samples. Default 10. */
  minSamples?: number;
  /** Wider intervals and less time. */
  quick?: boolean;
  /** Most memory for copies that keep operands cold, bytes; never more than a quarter of what is free. Default 1 GiB. */
  coldLimitBytes?: number;
  /** Compare with the definition before and after; seconds: longest time for it. Default: 2 s, quick 0.5 s. */
  check?: boolean | { seconds: number };
  /** Chooses the sampled rows and the order of compare(). Default 1. */
  seed?: number;
  /** Stops between rounds of samples; the promise rejects with the signal's reason. */
  signal?: AbortSignal;
  onProgress?: (progress: MeasureProgress) => void;
  /** For functions: the device whose allocator is read, and whose energy. */
  device?: Device;
  /**
   * Energy per call, in the same run. Default: metered where a counter of the device can be read; where none can, no time is
   * spent and the record says why. false: not metered.
   */
  energy?: boolean | EnergyOptions;
}

/** Of a Meter, what measuring needs. */
export type EnergyMeter = Pick<Meter, 'domains' | 'recording'>;

export interface EnergyOptions {
  /** Default: one of the device, opened and closed again. */
  meter?: EnergyMeter;
  /** Windows of load for each case. Default 5, quick 3; at least 2 for an interval. */
  windows?: number;
  /** Least length of a window, seconds; longer where 20 ticks of the counter or 32 calls take longer. Default 2, quick 1. */
  windowSeconds?: number;
  /** How long idle power is metered before and after, seconds. Default 1, quick 0.5. */
  idleSeconds?: number;
}

export interface EnergySettings {
  meter: EnergyMeter | undefined;
  windows: number;
  windowSeconds: number;
  idleSeconds: number;
}

export interface MeasureOptions extends CommonOptions {
  /** Of a weight of fewer than eight bits: performance' / performance of MCR, which no measurement of time knows; see fidelity(). */
  fidelity?: KeptPerformance;
  /** Default: all that exist, `device`, `stream` and `host` for a plan, `host` for a function. */
  clocks?: readonly Clock[];
  /** How the record is called. Default: the name of the operator or function. */
  name?: string;
}

export interface CompareOptions extends CommonOptions {
  /** As of measure(), by the name of the case. */
  fidelity?: Readonly<Record<string, KeptPerformance>>;
  /** Default: `device` when all are plans of one stream, else `host`. */
  clock?: Clock;
  /** What the others are divided by. Default: the first. */
  baseline?: string;
}

/** Options with every default in place. */
export interface Settings {
  rule: StopRule;
  cache: 'cold' | 'hot';
  coldLimitBytes: number;
  check: { seconds: number; seed: number } | null;
  seed: number;
  peakSeconds: number;
  signal: AbortSignal | undefined;
  onProgress: ((progress: MeasureProgress) => void) | undefined;
  device: Device | undefined;
  /** Null: not to be metered. */
  energy: EnergySettings | null;
}

const common = [
  'cache',
  'target',
  'maxSeconds',
  'minSamples',
  'quick',
  'coldLimitBytes',
  'check',
  'seed',
  'signal',
].concat(['onProgress', 'device', 'energy', 'fidelity']);
const names = { measure: [...common, 'clocks', 'name'], compare: [...common, 'clock', 'baseline'] };

export function settings(where: 'measure' | 'compare', options: MeasureOptions | CompareOptions): Settings {
  for (const name of Object.keys(options))
    if (!names[where].includes(name))
      throw new KernwattError('ARGUMENT', `${where}: ${name} is not an option, expected ${names[where].join(', ')}`);
  const base = options.quick ? quickStop : fullStop;
  const { cache = 'cold', check = true, seed = 1, coldLimitBytes = 2 ** 30 } = options;
  const rule = {
    ...base,
    target: options.target ?? base.target,
    maxSeconds: options.maxSeconds ?? base.maxSeconds,
    minSamples: options.minSamples ?? base.minSamples,
  };
  const refuse = (name: string, value: unknown, expected: string): never => {
    throw new KernwattError('ARGUMENT', `${where}: ${name} is ${String(value)}, expected ${expected}`);
  };
  if (cache !== 'cold' && cache !== 'hot') refuse('cache', cache, 'cold or hot');
  if (!(rule.target > 0 && rule.target < 1)) refuse('target', rule.target, 'a number between 0 and 1');
  if (!(rule.maxSeconds > 0 && rule.maxSeconds <= 3600))
    refuse('maxSeconds', rule.maxSeconds, 'more than 0, at most 3600');
  if (!(Number.isInteger(rule.minSamples) && rule.minSamples >= 1))
    refuse('minSamples', rule.minSamples, 'a whole number of 1 or more');
  if (!(coldLimitBytes >= 0)) refuse('coldLimitBytes', coldLimitBytes, 'a number of bytes, 0 or more');
  if (!Number.isSafeInteger(seed) || seed < 0) refuse('seed', seed, 'a whole number of 0 or more');
  if (options.device !== undefined && !(options.device instanceof Device))
    refuse('device', options.device, 'an open device');
  const seconds = typeof check === 'object' ? check.seconds : options.quick ? 0.5 : 2;
  if (check !== false && !(seconds > 0)) refuse('check.seconds', seconds, 'more than 0');
  rule.minSeconds = Math.min(rule.minSeconds, rule.maxSeconds);
  return {
    rule,
    cache,
    coldLimitBytes,
    check: check === false ? null : { seconds, seed },
    seed,
    peakSeconds: options.quick ? 0.15 : 0.3,
    signal: options.signal,
    onProgress: options.onProgress,
    device: options.device,
    energy: energySettings(options.energy ?? true, options.quick ?? false, refuse),
  };
}

const energyNames = ['meter', 'windows', 'windowSeconds', 'idleSeconds'];

/** Checked, with defaults; null: not metered. `refuse` says what is wrong. */
export function energySettings(
  asked: boolean | EnergyOptions,
  quick: boolean,
  refuse: (name: string, value: unknown, expected: string) => never,
): EnergySettings | null {
  if (asked === false) return null;
  if (typeof asked !== 'boolean' && (typeof asked !== 'object' || asked === null))
    refuse('energy', asked, 'true, false or an object');
  const given = asked === true ? {} : asked;
  for (const name of Object.keys(given))
    if (!energyNames.includes(name)) refuse('energy', `given ${name}`, energyNames.join(', '));
  const { meter, windows = quick ? 3 : 5, windowSeconds = quick ? 1 : 2, idleSeconds = quick ? 0.5 : 1 } = given;
  if (!(Number.isInteger(windows) && windows >= 1 && windows <= 1000))
    refuse('energy.windows', windows, 'a whole number from 1 to 1000');
  for (const [name, value] of Object.entries({ windowSeconds, idleSeconds }))
    if (!(value > 0 && value <= 3600)) refuse(`energy.${name}`, value, 'more than 0, at most 3600');
  if (meter !== undefined && typeof meter?.recording !== 'function')
    refuse('energy.meter', meter, 'a meter, as openMeter() gives it');
  return { meter, windows, windowSeconds, idleSeconds };
}

/** Throws unless it is a number above 0 with its kind in words, or absent. */
export function checkFidelity(where: string, given: KeptPerformance | undefined): void {
  if (given === undefined) return;
  if (!(given?.value > 0 && Number.isFinite(given.value)) || typeof given.kind !== 'string')
    throw new KernwattError(
      'ARGUMENT',
      `${where}: fidelity is ${JSON.stringify(given)}, expected a value above 0 and its kind in words`,
    );
}

/** The clocks to read, in the fixed order device, stream, host. */
export function chosenClocks(asked: readonly Clock[] | undefined, available: readonly Clock[], what: string): Clock[] {
  if (asked === undefined) return [...available];
  for (const clock of asked) {
    if (!clocks.includes(clock))
      throw new KernwattError('ARGUMENT', `measure: clock is ${clock}, expected ${clocks.join(', ')}`);
    if (!available.includes(clock))
      throw new KernwattError(
        'UNSUPPORTED',
        `measure: clock is ${clock}, expected ${available.join(', ')} for ${what}`,
      );
  }
  if (asked.length === 0) throw new KernwattError('ARGUMENT', 'measure: clocks is empty, expected at least one');
  return available.filter((clock) => asked.includes(clock));
}
