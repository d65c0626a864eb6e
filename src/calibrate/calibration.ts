// What a calibration says of a device, as it is returned, printed and cached: schema kernwatt.calibration/1.
import type { Peak } from '../measure/peaks.js';
import type { MissingState, Quantity } from '../measure/quantity.js';
import type { Identity } from './cache.js';
import type { CostFit } from './fit.js';

export const calibrationSchema = 'kernwatt.calibration/1';

/** What multiplies, by the names of the peaks. */
export const multipliers = ['fma_f32', 'dot_f16', 'dot_bf16'] as const;
export type Multiplier = (typeof multipliers)[number];

/** A load as it ran within the energy windows. */
export interface MeteredLoad {
  name: string;
  windows: number;
  watts: number;
  flopsPerSecond: number;
  bytesPerSecond: number;
}

export interface EnergyCosts {
  /** Joules for each floating-point operation by what does it, and for each byte of memory. */
  joulesPerFlop: Record<Multiplier, Quantity>;
  joulesPerByte: Quantity;
  /** Power that the device draws while awake, whatever it does. */
  constantW: Quantity;
  /** How well power follows from rates; null where nothing was metered. */
  fit: Pick<CostFit, 'residual' | 'misfit' | 'degrees' | 'windows' | 'loads'> | null;
  loads: MeteredLoad[];
  /** What the counters cover, and what is wrong with what they said. */
  includes: string[];
  caveats: string[];
  /** Counters that could not be read. */
  unread: { name: string; state: MissingState; reason: string; fix: string | null }[];
}

export interface Calibration {
  schema: typeof calibrationSchema;
  id: string;
  createdAt: string;
  /** What it holds for. */
  identity: Identity;
  device: { name: string; product: string };
  /** Measured ceilings, then what the hardware's description says. */
  peaks: Peak[];
  /** Ceilings that this device does not have, with the reason. */
  missing: { name: string; reason: string }[];
  energy: EnergyCosts;
}
