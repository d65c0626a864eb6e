// Loads that keep one part of a device busy: plans of the operator `peak`, sized for the device, on memory of their own. Ceilings
// are the best rates of their samples (peaks.ts); calibration meters them (src/calibrate).
import type { Device } from '../device.js';
import type { DType } from '../dtype.js';
import { native } from '../native.js';
import { peak } from '../ops/peak.js';
import type { Plan } from '../plan.js';
import type { Tensor } from '../tensor.js';

/**
 * `read`, `copy`: memory far beyond the last-level cache; `fma_f32`: independent multiply-adds out of registers; `dot_f16`,
 * `dot_bf16`: dot product instructions or tensor cores, sums in f32; `spin`: one dependent chain for each core or
 * multiprocessor.
 */
export const loadNames = ['read', 'copy', 'fma_f32', 'dot_f16', 'dot_bf16', 'spin'] as const;
export type LoadName = (typeof loadNames)[number];

const multiplied = { fma_f32: 'f32', dot_f16: 'f16', dot_bf16: 'bf16', spin: 'f32' } as const;
/** Whole numbers that use most of a significand and whose sums stay exact; zeros would need less power than real data. */
const wholeNumbers = { distribution: 'integers', low: -255, high: 255 } as const;
const callSeconds = 1e-3;

/** A load that is ready to run. Plans take turns; each call does the same work. */
export interface Load extends Disposable {
  name: LoadName;
  plans: readonly Plan[];
  /** Of one call. */
  flops: number;
  bytes: number;
  /** What multiplies: `fma_f32` where a device widens 16-bit numbers for want of an instruction. */
  unit: string;
}

/** A tile of `multiply`, how many of them keep a unit busy, and units: the kernels' own (kernels/peak). */
function tiling({ kind, info }: Device): { rows: number; each: number; width: number; units: number } {
  if (kind === 'cpu') return { rows: 96, each: 1, width: 192, units: info.threads ?? 1 };
  return { rows: 64, each: 2, width: 256, units: info.multiprocessors ?? 1 };
}

export interface LoadOptions {
  /** Of the device's units, for calibration at less than full intensity. Default 1. */
  share?: number;
  /** Parts of memory that take turns; default: as many as span twice the last-level cache and more. */
  parts?: number;
}

/**
 * Makes a load.
 * @throws {KernwattError} `OUT_OF_MEMORY`; `UNSUPPORTED` where the device has no such load.
 */
export async function makeLoad(device: Device, name: LoadName, options: LoadOptions = {}): Promise<Load> {
  const { share = 1 } = options;
  const held: { dispose(): void }[] = [];
  const dispose = () => {
    for (const one of held.splice(0)) one.dispose();
  };
  const keep = <T extends { dispose(): void }>(one: T): T => {
    held.push(one);
    return one;
  };
  try {
    const plans =
      name === 'read' || name === 'copy'
        ? memoryPlans(device, name, options, keep)
        : [await multiplyPlan(device, name, share, keep)];
    await device.stream.mark();
    const [{ work }] = plans as [Plan];
    const unit = String(plans[0]!.explain().unit ?? '');
    return { name, plans, flops: work.flops, bytes: work.bytes, unit, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

type Keep = <T extends { dispose(): void }>(one: T) => T;

/** Parts of one large buffer, so that nothing is met again before all the rest has passed through the caches. */
function memoryPlans(
  device: Device,
  load: 'read' | 'copy',
  { share = 1, parts: asked }: LoadOptions,
  keep: Keep,
): Plan[] {
  const onCpu = device.kind === 'cpu';
  const { freeBytes } = device.memory();
  const cache = device.info.lastLevelCacheBytes ?? 0;
  const bytes = Math.min(Math.max(2 * cache, 2 ** 28), 2 ** 30, Math.floor(freeBytes / 4)) / (load === 'copy' ? 2 : 1);
  const { units } = tiling(device);
  // One row for each task of a CPU or block of a GPU; a part takes a millisecond or more. At less than full intensity one longer
  // row for each unit that works.
  const all = onCpu ? Math.max(64, units) : 32 * units;
  const row = onCpu ? 2 ** 18 : 2 ** 14;
  const rows = share === 1 ? all : Math.max(1, Math.round(share * units));
  const columns = share === 1 ? row : Math.floor((all * row) / rows / 1024) * 1024;
  const parts = asked ?? Math.max(1, Math.floor(bytes / (4 * rows * columns)));
  const seed = keep(device.random([1, columns], 'f32'));
  const pattern = keep(seed.expand([rows, columns]));
  const from = keep(device.empty([parts * rows, columns]));
  const to = load === 'copy' ? keep(device.empty([parts * rows, columns])) : undefined;
  return Array.from({ length: parts }, (_, i) => {
    const part = (whole: Tensor) => keep(whole.slice([[i * rows, (i + 1) * rows]]));
    const x = part(from);
    // Filled by the threads that will use it, which places it near them.
    for (const y of to ? [x, part(to)] : [x]) peak.run({ x: pattern, y, load: 'copy' });
    return keep(peak.bind({ x, load, ...(to ? { y: part(to) } : {}) }));
  });
}

/** One plan with as many rounds as last a millisecond. */
async function multiplyPlan(
  device: Device,
  name: Exclude<LoadName, 'read' | 'copy'>,
  share: number,
  keep: Keep,
): Promise<Plan> {
  const dtype: DType = multiplied[name];
  const { rows, each, width, units } = tiling(device);
  const spin = name === 'spin';
  const columns = dtype === 'f32' ? 1 : 16;
  const working = Math.max(1, Math.round(share * units));
  const count = spin ? working : working * rows * (share === 1 ? each : 1);
  const x = keep(device.random([count, columns], dtype, { ...wholeNumbers, seed: 1 }));
  const w = keep(device.random([spin ? 1 : width, columns], dtype, { ...wholeNumbers, seed: 2 }));
  const y = keep(device.empty([count, spin ? 1 : width]));
  // An odd number, so that the result is not zero.
  for (let rounds = 255; ; rounds = 4 * rounds + 3) {
    const plan = peak.bind({ x, w, y, load: spin ? 'spin' : 'multiply', rounds });
    const seconds = Math.min(...(await sampleLoad({ plans: [plan] }, 3, 1, device)));
    if (seconds >= callSeconds || rounds > 2 ** 28) return keep(plan);
    plan.dispose();
  }
}

/** Seconds per call of `samples` samples of `calls` calls each. */
export async function sampleLoad(
  { plans }: Pick<Load, 'plans'>,
  samples: number,
  calls: number,
  device: Device,
): Promise<Float64Array> {
  const { seconds } = await native().sample(device.stream.handle, {
    cases: [plans.map((plan) => plan.handle)],
    order: new Uint32Array(samples),
    calls: Uint32Array.of(calls),
    clock: 'device',
  });
  return seconds;
}

/** Seconds of the fastest of many calls within about `limit` seconds: everything that disturbs one makes it slower. */
export async function fastestCall(device: Device, load: Load, limit: number): Promise<number> {
  const end = performance.now() + 1000 * limit;
  let best = Number.POSITIVE_INFINITY;
  let count = 3;
  do {
    for (const seconds of await sampleLoad(load, count, 1, device)) best = Math.min(best, seconds);
    const left = Math.max(0, end - performance.now()) / 1000;
    count = Math.max(1, Math.min(64, Math.floor(left / best / 2)));
  } while (performance.now() < end);
  return best;
}
