// What a meter hands to the estimators: columns of readings on one clock, and what was going on when.
import type { MissingState } from '../measure/quantity.js';
import type { Series } from './ticks.js';

/** A stretch of time, seconds of the clock that the readings carry. */
export interface Stretch {
  begin: number;
  end: number;
}

/** A stretch in which the load ran without a pause. */
export interface LoadWindow extends Stretch {
  iterations: number;
  /** Seconds in which the device had work; null when that was not measured. */
  busySeconds: number | null;
}

/** What a meter recorded. Everything but the counter may be absent; what follows from it is then missing with the reason. */
export interface MeterData {
  /** Cumulative joules, polled faster than the counter ticks. */
  counter: Series;
  /** Watts; `averagedSeconds`: over how long each reading is an average, 0 for instant power. */
  power?: Series & { averagedSeconds: number };
  /** Cumulative nanoseconds by reason: swPowerCap, swThermal, hwThermal, hwPowerBrake, syncBoost, boardLimit, lowUtil, reliability. */
  throttleNs?: Readonly<Record<string, Series>>;
  clockHz?: Series;
  temperatureC?: Series;
  /** NVML's utilization.gpu over 100: share of the sixth of a second to a second before each reading in which any kernel ran. */
  busyShare?: Series;
  /** Why a column is absent or ends, where the driver said. */
  refused?: { readonly [column in 'clockHz' | 'busyShare']?: { state: MissingState; reason: string } };
}

export interface MeterScope {
  /** What the counter covers. */
  scope: 'gpu' | 'physical-gpu' | 'module' | 'package';
  /** A part of a divided GPU: the counter still covers all of it. */
  mig: boolean;
  /** Other processes with work on it; null when that is not known. */
  otherProcesses: number | null;
}
