// What one measurement says, as written to JSON lines: schema kernwatt.measure/1 (src/schema/measure.json says the same to
// other programs, and a test holds the two together). SI base units; null only ever means "not known", with a reason nearby.
// Frozen: within /1 fields may be added, and none is removed or changes meaning or unit.
import type { EnergyEstimate } from '../energy/estimate.js';
import type { Judgement } from '../energy/judge.js';
import type { MeterScope } from '../energy/recording.js';
import type { MeterDomain } from '../meter/meter.js';
import type { Aec } from '../metrics/aec.js';
import type { Al } from '../metrics/al.js';
import type { Amu } from '../metrics/amu.js';
import type { At } from '../metrics/at.js';
import type { Mcr } from '../metrics/mcr.js';
import type { Pcu } from '../metrics/pcu.js';
import type { Environment, Tool } from './environment.js';
import type { Peak } from './peaks.js';
import type { MissingState, Quantity } from './quantity.js';
import type { Interval, Stat } from './stats.js';
import type { StopReason } from './stop.js';

export const schema = 'kernwatt.measure/1';

/** Which clock: `device` the work alone, `stream` submission to completion, `host` JavaScript call to completion. */
export type Clock = 'device' | 'stream' | 'host';
export const clocks: readonly Clock[] = ['device', 'stream', 'host'];

/**
 * State of the last-level cache before each call. `cold`: operands rotate through copies at least twice the size of the
 * cache; `warm`: they rotate, but the copies do not get there; `hot`: the same operands every time; `unknown`: a function.
 */
export type CacheState = 'cold' | 'warm' | 'hot' | 'unknown';

/**
 * - `ok`: outputs were compared with the reference before and after, and passed.
 * - `unchecked`: nothing to compare (a function) or checking was switched off.
 * - `invalid`: an output is wrong; the record carries no performance number.
 */
export type Verdict = 'ok' | 'unchecked' | 'invalid';

/**
 * - `not-converged`: the headline clock stopped before its interval was as narrow as asked.
 * - `stolen`: a hypervisor took the processor away during some samples (they are kept and counted).
 * - `cold-not-reached`: cold was asked for, the copies do not exceed the cache twofold.
 * - `above-peak`: more than 1.05 times a measured peak; the peak or the time is wrong.
 * - `in-place`: an output overwrites an input, so values change from call to call.
 * - `disputed`: the readings of the meter contradict each other or what is possible; `energy.disputed` says how.
 * - `unsteady`: power, clock or load changed within the energy windows; `energy.steady` says how.
 * - `not-attributable`: the joules are not those of this work alone; `energy.attributable` says whose else.
 */
export type Flag =
  | 'not-converged'
  | 'stolen'
  | 'cold-not-reached'
  | 'above-peak'
  | 'in-place'
  | 'disputed'
  | 'unsteady'
  | 'not-attributable';

export interface CaseRecord {
  name: string;
  /** Operator name, or null for a function. */
  op: string | null;
  /** Dimensions by name, as the operator names them. */
  shape: Record<string, number>;
  /** Data type of each tensor argument. */
  dtype: Record<string, string>;
  /** Other arguments. */
  args: Record<string, number | boolean | string>;
  /** How each input tensor was filled; tensors of unknown contents are left out. */
  inputs: Record<string, { distribution: string; seed: number | null }>;
}

export interface KernelRecord {
  device: string;
  backend: string;
  /** What the backend says about itself: variant, tile, reason ... */
  explain: Record<string, unknown>;
  workspaceBytes: number;
}

export interface CorrectnessRecord {
  state: 'passed' | 'failed' | 'unchecked';
  /** Why it failed or was not checked. */
  reason: string | null;
  /** Sampled rows of each output compared with the reference, and the seed that chose them. */
  rows: number;
  seed: number | null;
  elements: number;
  failed: number;
  /** Largest deviation over its tolerance; at most 1 passes. */
  worst: number | null;
  maxAbs: number | null;
  maxRel: number | null;
  cosine: number | null;
  /** 64-bit FNV-1a of every output, before and after the measurement. */
  hashBefore: string | null;
  hashAfter: string | null;
}

export interface ClockRecord extends Stat {
  callsPerSample: number;
  stop: { rule: StopReason; converged: boolean; target: number; measuredSeconds: number; elapsedSeconds: number };
  /** Samples taken while a hypervisor withheld more than 1 % of the processor; null when that cannot be seen. */
  stolenSamples: number | null;
}

export interface TimeRecord {
  cache: CacheState;
  /** Bytes that the rotating operand sets span, how many sets, and the cache they have to exceed. */
  coldBytes: number | null;
  copies: number;
  llcBytes: number | null;
  /** The clock that rates and metrics refer to. */
  headline: Clock;
  device: ClockRecord | null;
  stream: ClockRecord | null;
  host: ClockRecord | null;
  smClockHz: Quantity;
}

/** One counter of energy, and all that follows from its readings. */
export interface EnergyDomain extends EnergyEstimate {
  /** `gpu:0`, `package-0`, `package-0/dram` ... */
  name: string;
  source: NonNullable<MeterDomain['source']>;
  scope: MeterScope['scope'];
}

export interface EnergyRecord {
  /** Of all `domains` together: joules and watts add, variances too. Missing where one of them is. */
  perCallJ: Quantity;
  powerW: Quantity;
  /** perCallJ without what the same counters showed at idle in the same time. */
  netPerCallJ: Quantity;
  perTokenJ: Quantity;
  /** Over algorithmic operations, and over the bytes that must move. */
  perFlopJ: Quantity;
  perByteJ: Quantity;
  /** Mean over the energy windows, which are hotter than those of `time`. */
  secondsPerCall: Quantity;
  disputed: Judgement;
  steady: Judgement;
  attributable: Judgement;
  /** What the joules cover and what they do not, in words. */
  includes: string[];
  excludes: string[];
  /** Counters that were read; empty where nothing was metered. */
  domains: EnergyDomain[];
  /** Counters that could not be read, and the line that changes that. */
  unread: { name: string; state: MissingState; reason: string; fix: string | null }[];
}

export interface MemoryRecord {
  /** Bytes of one set of operands, and scratch space of the plan. */
  operandBytes: Quantity;
  workspaceBytes: Quantity;
  /** Allocator bytes of the device over the measured window, without the copies that only serve to keep operands cold. */
  averageBytes: Quantity;
  peakBytes: Quantity;
  /** Those copies, bytes. */
  rotationBytes: number;
}

export interface WorkRecord {
  /** Algorithmic operations and the bytes that must move at least once. */
  flops: number | null;
  minBytes: number | null;
  tokens: number | null;
  params: number | null;
}

export interface RateRecord {
  flopsPerSecond: Quantity;
  bytesPerSecond: Quantity;
}

export interface UtilisationRecord {
  peaks: Peak[];
  ofPeakFlops: Quantity;
  ofPeakBandwidth: Quantity;
}

export interface RooflineRecord {
  /** FLOPs per byte that must move. */
  intensity: number;
  boundBy: 'compute' | 'bandwidth';
  /** Shortest time the measured peaks allow, seconds. */
  floorSeconds: number;
  /** floorSeconds over the measured median. */
  fraction: number;
  /** Least energy of a call by the calibration of this device, and the share of it in `energy.perCallJ`. */
  energyFloorJ: Quantity;
  energyEfficiency: Quantity;
}

export interface Metrics {
  AMU: Amu;
  PCU: Pcu;
  AL: Al;
  AT: At;
  AEC: Aec;
  MCR: Mcr;
}

/** A ratio of times from one interleaved run; below 1 means faster than the baseline. */
export interface Comparison {
  baseline: string;
  baselineId: string;
  clock: Clock;
  /** Median over blocks of (time here / time of the baseline), and its 95 % interval. */
  ratio: number;
  ci95: Interval | null;
  /** median of all samples here over median of all samples of the baseline. */
  ratioOfMedians: number;
  blocks: number;
  seed: number;
  method: string;
  /** Joules per call here over those of the baseline, from windows in turns; the gain of the meter cancels. */
  energyRatio: Quantity;
  /** Rounds of windows that energyRatio rests on. */
  energyRounds: number;
}

export interface MeasureRecord {
  schema: typeof schema;
  id: string;
  /** Shared by records taken in one interleaved run. */
  runId: string;
  createdAt: string;
  tool: Tool;
  verdict: Verdict;
  flags: Flag[];
  case: CaseRecord;
  kernel: KernelRecord | null;
  correctness: CorrectnessRecord;
  work: WorkRecord;
  energy: EnergyRecord;
  /** Null when the verdict is invalid, as everything below. */
  time: TimeRecord | null;
  memory: MemoryRecord | null;
  rate: RateRecord | null;
  utilisation: UtilisationRecord | null;
  /** Also null when work or peaks are not known. */
  roofline: RooflineRecord | null;
  metrics: Metrics | null;
  /** Only in records of compare(), and null there for the baseline. */
  comparison: Comparison | null;
  env: Environment;
}
