// Ceilings that utilisation refers to: the best rates of the loads of loads.ts, measured here and now (`empirical`), and for a
// GPU what follows from its memory clock and bus width (`spec`). A utilisation always names which one it is a share of.
import { dotCeiling, flopsCeiling, noteCeiling } from '../ceilings.js';
import type { Device } from '../device.js';
import type { DType } from '../dtype.js';
import { KernwattError } from '../errors.js';
import { fastestCall, type LoadName, makeLoad } from './loads.js';
import { type Missing, missing } from './quantity.js';

export interface Peak {
  kind: 'flops' | 'bandwidth';
  /** A load of loads.ts: `fma_f32`, `dot_f16`, `dot_bf16`, `read`, `copy`; or `memory_bus`: clock times width. */
  name: string;
  value: number;
  unit: 'FLOP/s' | 'B/s';
  source: 'empirical' | 'spec';
  provenance: string;
}

export interface Peaks {
  flops: Peak | Missing;
  bandwidth: Peak | Missing;
  /** Beside them: what the hardware's description says. */
  spec: Peak[];
}

/** A rate, or why there is none. */
type Rate = number | string;

const known = new WeakMap<Device, Map<LoadName, Promise<Rate>>>();

/** Measured once for a device; `again` measures once more and keeps the larger. */
function empirical(device: Device, name: LoadName, seconds: number, again: boolean): Promise<Rate> {
  const rates = known.get(device) ?? new Map<LoadName, Promise<Rate>>();
  known.set(device, rates);
  const before = rates.get(name);
  if (before && !again) return before;
  const now = measureRate(device, name, seconds);
  const rate = before
    ? Promise.all([before, now]).then(([a, b]) =>
        typeof a === 'string' ? b : typeof b === 'string' ? a : Math.max(a, b),
      )
    : now;
  rates.set(name, rate);
  return rate;
}

/** On a device of its own, so that buffers of up to a gigabyte do not show in the memory of the caller's. */
async function measureRate(device: Device, name: LoadName, seconds: number): Promise<Rate> {
  try {
    await using own = await device.another();
    using load = await makeLoad(own, name);
    // A dot product that widens its operands would be measured as what it is not.
    if (name !== 'fma_f32' && load.unit === 'fma_f32')
      return `${device.name} has no instruction for ${name}: it multiplies in f32`;
    const work = rateOf(name) === 'FLOP/s' ? load.flops : load.bytes;
    return work / (await fastestCall(own, load, seconds));
  } catch (error) {
    if (!(error instanceof KernwattError) || !missingCodes.has(error.code)) throw error;
    return error.message;
  }
}

const missingCodes = new Set(['ERR_KERNWATT_UNSUPPORTED', 'ERR_KERNWATT_OUT_OF_MEMORY']);

const rateOf = (name: LoadName): Peak['unit'] => (name === 'read' || name === 'copy' ? 'B/s' : 'FLOP/s');

/**
 * One ceiling, or the reason why there is none.
 * @param again measures once more and keeps the larger.
 */
export async function peakOf(device: Device, name: LoadName, seconds: number, again = false): Promise<Peak | Missing> {
  const unit = rateOf(name);
  const rate = await empirical(device, name, seconds, again);
  const found = typeof rate === 'string' ? missing(unit, rate) : ceiling(device, name, rate, unit, seconds);
  noteCeiling(device, name, found);
  return found;
}

function ceiling(device: Device, name: LoadName, rate: number, unit: Peak['unit'], seconds: number): Peak {
  const { isa, threads } = device.info;
  const what =
    unit === 'FLOP/s' ? `independent ${name} out of registers` : `memory ${name} beyond the last-level cache`;
  const where = device.kind === 'cpu' ? `${isa ?? 'unknown isa'}, ${threads ?? '?'} threads` : device.info.name;
  return {
    kind: unit === 'FLOP/s' ? 'flops' : 'bandwidth',
    name,
    value: rate,
    unit,
    source: 'empirical',
    provenance: `${what}, ${where}, fastest call in ${seconds} s in this process`,
  };
}

/**
 * The ceilings for work whose operands are of `dtype`. Measured once for a device and process, `seconds` each, and once more
 * with `again`: when work was faster than its ceiling, something held the ceiling down.
 */
export async function peaksFor(device: Device, dtype: DType | null, seconds: number, again = false): Promise<Peaks> {
  const fma = await peakOf(device, 'fma_f32', seconds, again);
  const half = dotCeiling(dtype);
  const flops = flopsCeiling(fma, half && (await peakOf(device, half, seconds, again)));
  return { flops, bandwidth: await peakOf(device, 'read', seconds, again), spec: specPeaks(device) };
}

/** What follows from the description of the hardware. */
export function specPeaks({ info }: Device): Peak[] {
  const { memoryClock, memoryBusBits } = info;
  if (!memoryClock || !memoryBusBits) return [];
  return [
    {
      kind: 'bandwidth',
      name: 'memory_bus',
      // Two transfers for each clock, as every memory of these devices has.
      value: (2 * memoryClock * memoryBusBits) / 8,
      unit: 'B/s',
      source: 'spec',
      provenance: `2 x ${memoryClock} Hz x ${memoryBusBits} bit / 8`,
    },
  ];
}
