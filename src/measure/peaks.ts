// Ceilings that utilisation refers to. On the CPU they are measured here and now (`empirical`); for a GPU the bandwidth follows
// from its memory clock and bus width (`spec`). A utilisation always names which one it is a share of.
import type { Device } from '../device.js';
import type { DType } from '../dtype.js';
import { native } from '../native.js';
import { type Missing, missing } from './quantity.js';

export interface Peak {
  kind: 'flops' | 'bandwidth';
  /** `fma_f32`, `dot_bf16`: fused multiply-adds; `read`: memory reads; `memory_bus`: clock times width. */
  name: string;
  value: number;
  unit: 'FLOP/s' | 'B/s';
  source: 'empirical' | 'spec';
  provenance: string;
}

export interface Peaks {
  flops: Peak | Missing;
  bandwidth: Peak | Missing;
}

type NativePeak = Parameters<ReturnType<typeof native>['peak']>[1];

const known = new WeakMap<Device, Map<NativePeak, Promise<number>>>();

/**
 * Measured once for a device: the best of many windows of milliseconds, because everything that disturbs one lowers it. `again`
 * measures once more and keeps the larger.
 */
function empirical(device: Device, name: NativePeak, seconds: number, again: boolean): Promise<number> {
  const peaks = known.get(device) ?? new Map<NativePeak, Promise<number>>();
  known.set(device, peaks);
  const before = peaks.get(name);
  if (before && !again) return before;
  const now = native().peak(device.stream.handle, name, seconds);
  const peak = before ? Promise.all([before, now]).then(([a, b]) => Math.max(a, b)) : now;
  peaks.set(name, peak);
  return peak;
}

async function cpuPeak(
  device: Device,
  kind: Peak['kind'],
  name: NativePeak,
  seconds: number,
  again: boolean,
): Promise<Peak | null> {
  const value = await empirical(device, name, seconds, again);
  if (Number.isNaN(value)) return null;
  const { isa, threads } = device.info;
  const what = kind === 'flops' ? `independent ${name} instructions` : `memory ${name} beyond the last-level cache`;
  return {
    kind,
    name,
    value,
    unit: kind === 'flops' ? 'FLOP/s' : 'B/s',
    source: 'empirical',
    provenance: `${what}, ${isa ?? 'unknown isa'}, ${threads ?? '?'} threads, best window of ${seconds} s in this process`,
  };
}

/**
 * The ceilings for work whose operands are of `dtype`. Measured once for a device and process, `seconds` each, and once more
 * with `again`: when work was faster than its ceiling, something held the ceiling down.
 */
export async function peaksFor(device: Device, dtype: DType | null, seconds: number, again = false): Promise<Peaks> {
  if (device.kind !== 'cpu') return gpuPeaks(device);
  const dot = dtype === 'bf16' ? await cpuPeak(device, 'flops', 'dot_bf16', seconds, again) : null;
  const fma = await cpuPeak(device, 'flops', 'fma_f32', seconds, again);
  // bf16 operands may be widened and multiplied in f32, which on some processors is the faster way.
  const flops = dot && fma && dot.value < fma.value ? fma : (dot ?? fma);
  const bandwidth = await cpuPeak(device, 'bandwidth', 'read', seconds, again);
  return {
    flops: flops ?? missing('FLOP/s', 'this processor has no instruction whose peak is measured here'),
    bandwidth: bandwidth ?? missing('B/s', 'memory bandwidth could not be measured'),
  };
}

function gpuPeaks({ info }: Device): Peaks {
  const { memoryClock, memoryBusBits } = info;
  const flops = missing('FLOP/s', 'no peak of this device has been measured');
  if (!memoryClock || !memoryBusBits)
    return { flops, bandwidth: missing('B/s', 'the driver does not say memory clock and bus width') };
  const bandwidth: Peak = {
    kind: 'bandwidth',
    name: 'memory_bus',
    // Two transfers for each clock, as every memory of these devices has.
    value: (2 * memoryClock * memoryBusBits) / 8,
    unit: 'B/s',
    source: 'spec',
    provenance: `2 x ${memoryClock} Hz x ${memoryBusBits} bit / 8`,
  };
  return { flops, bandwidth };
}
