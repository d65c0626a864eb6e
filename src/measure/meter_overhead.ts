// What metering costs the work that is metered: reference kernels timed with a meter open and without one, in turns, and the ratio of
// the two with its interval. `kernwatt bench --self` prints it.
import type { Device } from '../device.js';
import { type Meter, openMeter } from '../meter/meter.js';
import { gemm } from '../ops/index.js';
import { randomSource } from '../random.js';
import { Interleaved, mirroredBlocks } from './interleave.js';
import { calibrate } from './loop.js';
import type { EnergyMeter } from './options.js';
import { type Interval, median, summarize } from './stats.js';
import { subject } from './subject.js';

export interface KernelOverhead {
  kernel: string;
  /** Seconds per call with the meter on over those with it off: median over blocks, and its 95 % interval. */
  ratio: number;
  ci95: Interval | null;
  blocks: number;
  /** Median seconds per call of either. */
  onSeconds: number;
  offSeconds: number;
}

export interface MeterOverhead {
  /** Names of the counters that were read; empty where none can be. */
  domains: string[];
  /** Why none can be. */
  reason: string | null;
  kernels: KernelOverhead[];
}

export interface OverheadOptions {
  /** For each kernel, seconds. Default 15. */
  seconds?: number;
  signal?: AbortSignal;
  /** Opens the meter. Default: that of the device, or of the first GPU where the device has none. */
  open?: () => Promise<EnergyMeter & AsyncDisposable>;
}

/** What the meter may cost at most, as a share of the time. */
const target = 0.01;
/** One visit, with or without the meter, is timed for so long, seconds. */
const visitSeconds = 0.1;
const warmUpSeconds = 0.02;
const sampleSeconds = 1e-3;
/** An order-statistic interval needs as many. */
const fewestBlocks = 6;

/** One row is bound by memory, many by arithmetic. */
const kernels = [
  { name: 'one row', m: 1, n: 2048, k: 2048 },
  { name: '128 rows', m: 128, n: 512, k: 512 },
] as const;

const readable = ({ domains }: Pick<Meter, 'domains'>): string[] =>
  domains.filter(({ state }) => state === 'ok').map(({ name }) => name);

export async function meterOverhead(device: Device, options: OverheadOptions = {}): Promise<MeterOverhead> {
  const { seconds = 15, signal } = options;
  const { open, domains, reason } = options.open
    ? { open: options.open, ...(await tried(options.open)) }
    : await found(device);
  if (domains.length === 0) return { domains, reason, kernels: [] };
  const measured: KernelOverhead[] = [];
  for (const kernel of kernels) measured.push(await one(device, kernel, open, seconds, signal));
  return { domains, reason: null, kernels: measured };
}

type Open = () => Promise<EnergyMeter & AsyncDisposable>;

/** What such a meter can read, or the reasons why it can read nothing. */
async function tried(open: Open): Promise<{ domains: string[]; reason: string }> {
  await using meter = await open();
  return { domains: readable(meter), reason: meter.domains.map(({ name, reason }) => `${name}: ${reason}`).join('; ') };
}

/** The device's own meter, else that of the first GPU: its counter is read by the same thread at the same pace. */
async function found(device: Device): Promise<{ open: Open; domains: string[]; reason: string }> {
  const own: Open = () => openMeter({ device });
  const first = { open: own, ...(await tried(own)) };
  if (first.domains.length > 0 || device.kind !== 'cpu') return first;
  const gpu: Open = () => openMeter({ gpu: 0 });
  const second = { open: gpu, ...(await tried(gpu)) };
  return { ...second, reason: `${first.reason}; ${second.reason}` };
}

async function one(
  device: Device,
  { name, m, n, k }: (typeof kernels)[number],
  open: Open,
  seconds: number,
  signal: AbortSignal | undefined,
): Promise<KernelOverhead> {
  const x = device.random([m, k], 'f32', { seed: 1 });
  const w = device.random([n, k], 'f32', { seed: 2 });
  const plan = gemm.bind({ x, w });
  try {
    await using it = await subject(plan, { name, cache: 'hot', coldLimitBytes: 0, check: null });
    const run = it.runner('device');
    const { calls, perCall } = await calibrate(run, sampleSeconds);
    const [samples, warmUp] = [visitSeconds, warmUpSeconds].map((length) =>
      Math.max(1, Math.ceil(length / (calls * perCall))),
    ) as [number, number];
    const visit = async (metered: boolean): Promise<number> => {
      signal?.throwIfAborted();
      // Opening waits for the counters, so both kinds of visits open, warm up alike, and differ in when they close alone.
      await using meter = await open();
      if (!metered) await meter[Symbol.asyncDispose]();
      await run(warmUp, calls);
      return median((await run(samples, calls)).seconds);
    };
    const next = randomSource(1);
    const seen = new Interleaved(2);
    const until = performance.now() + 1000 * seconds;
    while (seen.blocks < fewestBlocks || performance.now() < until) {
      const order = mirroredBlocks(2, 1, next);
      const block = new Float64Array(order.length);
      for (const [i, which] of order.entries()) block[i] = await visit(which === 1);
      seen.add(order, block);
    }
    const { median: ratio, ci95Median: ci95 } = summarize(seen.ratios(1, 0));
    const [off, on] = seen.samples.map((values) => median(values));
    const kernel = `gemm of ${name}, m=${m} n=${n} k=${k}, f32`;
    return { kernel, ratio, ci95, blocks: seen.blocks, onSeconds: on!, offSeconds: off! };
  } finally {
    plan.outputs.y.dispose();
    plan.dispose();
    x.dispose();
    w.dispose();
  }
}

/** One line for each kernel, or the one that says why there is none. */
export function overheadText({ domains, reason, kernels: measured }: MeterOverhead): string {
  if (domains.length === 0) return `What a meter costs cannot be measured here, as no counter can be read: ${reason}`;
  const lines = measured.map(({ kernel, ratio, ci95, blocks }) => {
    if (!ci95) return `${kernel}: ${ratio.toFixed(4)}, too few blocks for an interval`;
    const [low, high] = ci95;
    const verdict =
      Math.max(Math.abs(low - 1), Math.abs(high - 1)) <= target
        ? 'within 1 %'
        : low > 1 + target || high < 1 - target
          ? 'not within 1 %'
          : 'too noisy to say whether it is within 1 %';
    return `${kernel}: ${ratio.toFixed(4)}, 95 % CI ${low.toFixed(4)} to ${high.toFixed(4)}, ${blocks} blocks: ${verdict}`;
  });
  return [`Time with the meter of ${domains.join(', ')} on, over time with it off, in turns:`, ...lines].join('\n');
}
