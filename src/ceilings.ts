// Measured ceilings of devices, as far as this process knows them, and what follows from them for a plan: its roofline.
import type { Device } from './device.js';
import type { DType } from './dtype.js';
import type { Peak } from './measure/peaks.js';
import type { Missing } from './measure/quantity.js';
import { si } from './report/format.js';
import type { Work } from './spec.js';

const known = new WeakMap<Device, Map<string, Peak | Missing>>();

/** Notes a ceiling, or that a device has none of that name; of two measured ones the larger stays. */
export function noteCeiling(device: Device, name: string, found: Peak | Missing): void {
  const ceilings = known.get(device) ?? new Map<string, Peak | Missing>();
  known.set(device, ceilings);
  const before = ceilings.get(name)?.value ?? 0;
  if ((found.value ?? 0) >= before) ceilings.set(name, found);
}

export const isPeak = (peak: Peak | Missing): peak is Peak => 'provenance' in peak;

/** The ceiling of dot products of 16-bit numbers; null for other types. */
export const dotCeiling = (dtype: DType | null): 'dot_bf16' | 'dot_f16' | null =>
  dtype === 'bf16' ? 'dot_bf16' : dtype === 'f16' ? 'dot_f16' : null;

/** 16-bit operands may be widened and multiplied in f32, which on some processors is the faster way: the higher of the two. */
export const flopsCeiling = (fma: Peak | Missing, dot: Peak | Missing | null): Peak | Missing =>
  dot && isPeak(dot) && !(isPeak(fma) && fma.value > dot.value) ? dot : fma;

export interface Roof {
  /** FLOP per byte. */
  intensity: number;
  boundBy: 'compute' | 'bandwidth';
  /** The least time the ceilings allow. */
  floorSeconds: number;
}

/** The roofline of work that moves `bytes` at least. */
export function roofOf(flops: number, bytes: number, flopsPerSecond: number, bytesPerSecond: number): Roof {
  const compute = flops / flopsPerSecond;
  const traffic = bytes / bytesPerSecond;
  return {
    intensity: flops / bytes,
    boundBy: compute >= traffic ? 'compute' : 'bandwidth',
    floorSeconds: Math.max(compute, traffic),
  };
}

/** What a plan costs at least; operands come from memory. */
export interface Roofline {
  flops: number;
  bytes: number;
  /** FLOP per byte; null without bytes. */
  intensity: number | null;
  /** Which ceiling decides, and the least time; null where the ceilings are unknown. */
  boundBy: 'compute' | 'bandwidth' | null;
  floorSeconds: number | null;
  /** Of the floor in the time that the backend predicts; null where it predicts none. */
  predictedShare: number | null;
  /** `measured` by calibrate() or measure() on this device; `nominal`: the backend's figures of such hardware. */
  ceilings: 'measured' | 'nominal' | 'unknown';
  /** What they are, or how to know them. */
  reason: string;
}

interface Nominal {
  bound: 'compute' | 'bandwidth';
  microseconds: number;
  clocks: string;
}

type Bound = Pick<Roofline, 'boundBy' | 'floorSeconds' | 'ceilings' | 'reason'>;

const unknown = (reason: string): Bound => ({ boundBy: null, floorSeconds: null, ceilings: 'unknown', reason });

function boundOf(device: Device, dtype: DType | null, { flops, bytes }: Work, nominal: Nominal | undefined): Bound {
  if (flops === 0 && bytes === 0) return unknown('there is nothing to compute');
  const ceilings = known.get(device);
  const dot = dotCeiling(dtype);
  const [fma, read, half] = ['fma_f32', 'read', dot].map((name) => (name ? ceilings?.get(name) : null));
  if (fma && read && half !== undefined) {
    const most = flopsCeiling(fma, half ?? null);
    if (isPeak(most) && isPeak(read)) {
      const { boundBy, floorSeconds } = roofOf(flops, bytes, most.value, read.value);
      const [compute, traffic] = [most, read].map(({ name, value, unit }) => `${name} ${si(value, unit)}`);
      return { boundBy, floorSeconds, ceilings: 'measured', reason: `${compute}, ${traffic}` };
    }
  }
  if (nominal)
    return {
      boundBy: nominal.bound,
      floorSeconds: nominal.microseconds / 1e6,
      ceilings: 'nominal',
      reason: `clocks ${nominal.clocks}`,
    };
  if (device.info.emulated) return unknown(`${device.name} is emulated: it is never fast or slow`);
  return unknown(`this process knows no ceilings of ${device.name}: await calibrate(device) reads or measures them`);
}

/** @param facts what the backend says of itself: `roofline` of nominal ceilings, `predictedMicroseconds`. */
export function rooflineOf(device: Device, dtype: DType | null, work: Work, facts: Record<string, unknown>): Roofline {
  const { flops, bytes } = work;
  const bound = boundOf(device, dtype, work, facts.roofline as Nominal | undefined);
  const predicted = facts.predictedMicroseconds as number | undefined;
  const { floorSeconds } = bound;
  const predictedShare = predicted && floorSeconds !== null ? (floorSeconds * 1e6) / predicted : null;
  return { flops, bytes, intensity: bytes > 0 ? flops / bytes : null, ...bound, predictedShare };
}
