// measure(): one plan or function, one record. Checks, times each clock until its stop rule fires, checks again.
import { randomUUID } from 'node:crypto';
import { costsFor } from '../calibrate/costs.js';
import type { Device } from '../device.js';
import type { CpuInfo } from '../info.js';
import { native } from '../native.js';
import { assemble, type MemoryReading, memoryWindow, type Observation } from './assemble.js';
import { unmetered } from './energy.js';
import { readSteal, stealShare } from './environment.js';
import { gpuFacts } from './gpu_facts.js';
import { timeClock } from './loop.js';
import { meterEnergy } from './metering.js';
import {
  checkFidelity,
  chosenClocks,
  type MeasureOptions,
  type MeasureProgress,
  type Settings,
  settings,
} from './options.js';
import { type Peaks, peaksFor } from './peaks.js';
import { missing } from './quantity.js';
import type { Clock, ClockRecord, MeasureRecord } from './record.js';
import { type Measurable, type Subject, subject } from './subject.js';

/** Samples last at least this long: far above the resolution of the clock and the cost of reading it. */
export const sampleSeconds: Record<Clock, number> = { device: 1e-3, stream: 1e-3, host: 1e-4 };

/** src/later.ts says what it does. */
export async function measure(what: Measurable, options: MeasureOptions = {}): Promise<MeasureRecord> {
  const set = settings('measure', options);
  set.signal?.throwIfAborted();
  checkFidelity('measure', options.fidelity);
  await using it = await subject(what, { ...set, name: options.name, fidelity: options.fidelity });
  const asked = chosenClocks(options.clocks, it.clocks, it.name);
  const report = reporter(it, asked, set);
  const start = { runId: randomUUID(), createdAt: new Date(), cpu: cpuOf(it) };
  report('check', 0);
  const before = await it.before();
  if (before.state === 'failed') return assemble(it, invalid(start, before));
  report('peaks', 0);
  const peaks = await peaksOf(it, set);
  const steal = readSteal();
  const memory = readMemory(it.device);
  const times: Partial<Record<Clock, ClockRecord>> = {};
  for (const clock of asked) {
    times[clock] = await timeClock(it.runner(clock), {
      rule: set.rule,
      sampleSeconds: sampleSeconds[clock],
      signal: set.signal,
      onRound: (done) => report(clock, done),
    });
  }
  const window = memory && memoryWindow(memory, readMemory(it.device)!, it.extraBytes);
  const share = stealShare(steal, readSteal());
  const gpu = await gpuFacts(it.device);
  const [energy] = await meterEnergy([it], set, gpu, (done) => report('energy', done));
  const correctness = await it.after();
  if (correctness.state === 'failed') return assemble(it, invalid(start, correctness));
  report(set.energy ? 'energy' : asked.at(-1)!, 1);
  const observed = {
    correctness,
    times,
    memory: window ?? unreadMemory,
    stealShare: share,
    energy: energy!,
    calibration: await costsFor(it.device, peaks),
    gpu,
    comparison: null,
  };
  const record = assemble(it, { ...start, ...observed, peaks });
  if (!record.flags.includes('above-peak')) return record;
  return assemble(it, { ...start, ...observed, peaks: await peaksOf(it, set, true) });
}

type Start = Pick<Observation, 'runId' | 'createdAt' | 'cpu'>;

const notMeasured = unmetered('the result is wrong, so nothing was measured');

export const invalid = (start: Start, correctness: Observation['correctness']): Observation => ({
  ...start,
  correctness,
  times: null,
  memory: null,
  peaks: null,
  stealShare: null,
  energy: notMeasured,
  calibration: null,
  gpu: null,
  comparison: null,
});

const noDevice = missing('B', 'no device was named; pass `device` to read its allocator');
const unreadMemory = { averageBytes: noDevice, peakBytes: noDevice };

const readMemory = (device: Device | null): MemoryReading | undefined => device?.memory();

/** The processor as the addon sees it; functions can be measured without the addon. */
export function cpuOf(it: Subject): CpuInfo | null {
  if (it.device) return native().cpu();
  try {
    return native().cpu();
  } catch {
    return null;
  }
}

export function peaksOf(it: Subject, { peakSeconds }: Settings, again = false): Promise<Peaks> | Peaks {
  if (it.device && it.case.op !== null) return peaksFor(it.device, it.dtype, peakSeconds, again);
  const reason = 'a function does not say how much work it is';
  return { flops: missing('FLOP/s', reason), bandwidth: missing('B/s', reason), spec: [] };
}

/** Progress over everything: checking takes a tenth, the clocks and the energy windows share the rest. */
function reporter(it: Subject, asked: readonly Clock[], { onProgress, energy }: Settings) {
  const phases: readonly MeasureProgress['phase'][] = energy ? [...asked, 'energy'] : asked;
  return (phase: MeasureProgress['phase'], done: number): void => {
    const index = phases.indexOf(phase);
    onProgress?.({ name: it.name, phase, done: index < 0 ? 0.05 : 0.1 + (0.9 * (index + done)) / phases.length });
  };
}
