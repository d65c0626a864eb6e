// What the addon's meters speak: counters of energy, their readings, and what reading them costs.
import type { MissingState } from './measure/quantity.js';

/** One cumulative counter of energy, as native/meter/source.h reads it. */
export type SourceSpec = {
  /** As messages call it. */
  name: string;
  joulesPerCount: number;
  /** Raw readings start again at 0 after this one; 0: they do not wrap, or nobody knows. */
  range: number;
} & (
  | { kind: 'file'; path: string }
  | { kind: 'perf'; type: number; config: number; cpu: number }
  | { kind: 'nvml' /** PCI address, UUID or NVML's index. */; gpu: string }
);

export interface SourceStatus {
  polls: number;
  failures: number;
  /** How often the counter moved. */
  ticks: number;
  /** Whether the last poll was answered. */
  answering: boolean;
  /** The last poll that was not. */
  trouble: { state: MissingState; reason: string } | null;
  /** Of the counter's readings, seconds; both 0 before there is one. */
  first: number;
  last: number;
  /** Up to this moment every reading showed the value before the last tick; -Infinity before there is one. */
  lastTickAfter: number;
  /** Of a GPU that was found: its PCI address, its index and how many there are by NVML, and whether it is divided. */
  gpu: { label: string; index: number; gpus: number; mig: boolean } | null;
  /** The counter's own last value. */
  joules: number;
}

export type NativeSeries = Record<'seconds' | 'values', Float64Array>;

export interface SourceReadings {
  /**
   * `counter`: joules since the first reading, where they change. Of GPUs, as far as they are read: `powerInstant`, `powerAverage` (W),
   * `clock` (Hz), `busy` (share of time), `temperature` (degrees Celsius), `processes`, and `throttle.REASON` (ns, where they change).
   */
  series: { readonly counter: NativeSeries; readonly [column: string]: NativeSeries };
  /** Columns with a function of their own, such as `clock` and `busy`, whose last reading failed. */
  refused: { readonly [column: string]: { state: MissingState; reason: string } };
  /** Stretches over which the counter tells nothing. */
  breaks: { from: number; to: number; reason: string }[];
  /** Of what is older only a part is kept; -Infinity while everything is. */
  thinnedBefore: number;
}

/** What metering costs this process; over its life. */
export interface SamplerCost {
  /** Processor time of the sampling thread, and how long there was one. */
  cpuSeconds: number;
  seconds: number;
  polls: number;
  /** Counters read now. */
  sources: number;
}
