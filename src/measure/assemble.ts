// Puts a record together from what was observed: rates, utilisation, roofline, the six metrics, flags. Arithmetic only.

import { randomUUID } from 'node:crypto';
import { roofOf } from '../ceilings.js';
import { aec } from '../metrics/aec.js';
import { al } from '../metrics/al.js';
import { amu } from '../metrics/amu.js';
import { at } from '../metrics/at.js';
import { mcr } from '../metrics/mcr.js';
import { pcu } from '../metrics/pcu.js';
import { type EnergyObservation, energyRecord, unmetered } from './energy.js';
import { type EnergyCalibration, energyEfficiency, energyFloor } from './energy_floor.js';
import { describeEnvironment, describeTool, type GpuFacts } from './environment.js';
import { type GpuLoad, noGpuLoad } from './gpu_load.js';
import type { Peak, Peaks } from './peaks.js';
import { derived, known, type Missing, missing, type Quantity } from './quantity.js';
import {
  type Clock,
  type ClockRecord,
  type Comparison,
  type CorrectnessRecord,
  clocks,
  type EnergyRecord,
  type Flag,
  type MeasureRecord,
  type MemoryRecord,
  type RooflineRecord,
  schema,
  type TimeRecord,
} from './record.js';
import type { Subject } from './subject.js';

/** Shares of a peak above this mean that the peak or the time is wrong. */
const wall = 1.05;

export interface Observation {
  runId: string;
  createdAt: Date;
  cpu: Parameters<typeof describeEnvironment>[0];
  correctness: CorrectnessRecord;
  /** What follows is null for an invalid record. */
  times: Partial<Record<Clock, ClockRecord>> | null;
  memory: { averageBytes: Quantity; peakBytes: Quantity } | null;
  peaks: Peaks | null;
  stealShare: number | null;
  energy: EnergyObservation;
  /** Costs per operation, byte and second of the device; null where it has not been calibrated. */
  calibration: EnergyCalibration | null;
  gpu: GpuFacts | null;
  comparison: Comparison | null;
}

const wrong = unmetered('the result is wrong, and a wrong result has no performance');

export function assemble(subject: Subject, seen: Observation): MeasureRecord {
  const { correctness } = seen;
  const verdict = correctness.state === 'failed' ? 'invalid' : correctness.state === 'passed' ? 'ok' : 'unchecked';
  const energy = energyRecord(verdict === 'invalid' ? wrong : seen.energy, subject.work);
  const base = {
    schema,
    id: randomUUID(),
    runId: seen.runId,
    createdAt: seen.createdAt.toISOString(),
    tool: describeTool(),
    verdict,
    case: subject.case,
    kernel: subject.kernel,
    correctness,
    work: subject.work,
    energy,
  } as const;
  const { device } = subject;
  const env = describeEnvironment(seen.cpu, device, seen.stealShare, seen.gpu);
  if (verdict === 'invalid' || !seen.times || !seen.memory || !seen.peaks) {
    const nothing = { time: null, memory: null, rate: null, utilisation: null, roofline: null, metrics: null };
    return { ...base, flags: subject.inPlace ? ['in-place'] : [], ...nothing, comparison: null, env };
  }
  const load = loadOf(subject, seen.energy);
  const time = timeRecord(subject, seen.times, load);
  const headline = time[time.headline]!;
  const seconds = known(headline.median, 's', `median, ${time.headline} clock`, headline.ci95Median);
  const rate = {
    flopsPerSecond: perSecond(subject.work.flops, 'FLOP/s', seconds),
    bytesPerSecond: perSecond(subject.work.minBytes, 'B/s', seconds),
  };
  const utilisation = utilise(rate, seen.peaks, time);
  const memory: MemoryRecord = {
    operandBytes: subject.operandBytes,
    workspaceBytes: subject.workspaceBytes,
    ...seen.memory,
    rotationBytes: subject.extraBytes,
  };
  const { tokens, params } = subject.work;
  const latency = al({ device: time.device, stream: time.stream, host: time.host });
  return {
    ...base,
    flags: flags(subject, time, utilisation, energy),
    time,
    memory,
    rate,
    utilisation,
    roofline: roofline(subject, seen, seen.peaks, time, energy),
    metrics: {
      AMU: amu(memory.averageBytes, memory.peakBytes, device?.info.totalBytes ?? null),
      PCU: pcu(load.busyShare, utilisation.ofPeakFlops, utilisation.ofPeakBandwidth),
      AL: latency,
      AT: at({ tokens, params, meanSeconds: latency.paper.AL, medianSeconds: seconds }),
      AEC: aec(energy.powerW, energy.perCallJ, tokens),
      MCR: mcr(subject.compression),
    },
    comparison: seen.comparison,
    env,
  };
}

/** Of the GPU that was metered, which is that of the subject unless a meter was given. */
function loadOf({ device }: Subject, energy: EnergyObservation): GpuLoad {
  if ('gpu' in energy && energy.gpu) return energy.gpu;
  if (device?.kind !== 'cuda') return noGpuLoad('NVML knows GPUs alone, and this ran on the CPU');
  return 'absent' in energy
    ? noGpuLoad(`it is read in energy windows, and there were none: ${energy.absent.reason}`, energy.absent.state)
    : noGpuLoad('it is read from NVML, and not exactly one counter of the meter is of NVML');
}

function timeRecord(subject: Subject, times: Partial<Record<Clock, ClockRecord>>, { smClockHz }: GpuLoad): TimeRecord {
  return {
    cache: subject.cache,
    coldBytes: subject.coldBytes,
    copies: subject.copies,
    llcBytes: subject.llcBytes,
    headline: clocks.find((clock) => times[clock])!,
    device: times.device ?? null,
    stream: times.stream ?? null,
    host: times.host ?? null,
    smClockHz,
  };
}

const perSecond = (count: number | null, unit: string, seconds: Quantity): Quantity =>
  count === null
    ? missing(unit, 'a function does not say how much work it is')
    : derived(seconds, unit, `${count} per call over the median time`, (s) => count / s);

function utilise(
  rate: { flopsPerSecond: Quantity; bytesPerSecond: Quantity },
  { flops, bandwidth, spec }: Peaks,
  { cache }: TimeRecord,
) {
  const share = (achieved: Quantity, peak: Peak | Missing): Quantity =>
    'provenance' in peak
      ? derived(
          achieved,
          '1',
          `of the ${peak.source} peak ${peak.name}, ${Number(peak.value.toPrecision(4))} ${peak.unit}`,
          (v) => v / peak.value,
        )
      : { ...peak, unit: '1' };
  return {
    peaks: [flops, bandwidth, ...spec].filter((peak): peak is Peak => 'provenance' in peak),
    ofPeakFlops: share(rate.flopsPerSecond, flops),
    // Operands that stay in a cache do not come from memory, so a share of its bandwidth would say nothing.
    ofPeakBandwidth:
      cache === 'cold' || rate.bytesPerSecond.value === null
        ? share(rate.bytesPerSecond, bandwidth)
        : missing('1', `operands are ${cache}: they need not come from memory`),
  };
}

function roofline(
  { work }: Subject,
  { calibration }: Observation,
  { flops, bandwidth }: Peaks,
  time: TimeRecord,
  { perCallJ }: EnergyRecord,
): RooflineRecord | null {
  if (!work.flops || !work.minBytes || !('provenance' in flops) || !('provenance' in bandwidth)) return null;
  const roof = roofOf(work.flops, work.minBytes, flops.value, bandwidth.value);
  const { floorSeconds } = roof;
  // The memory side of the roof holds only for operands that come from memory.
  if (roof.boundBy === 'bandwidth' && time.cache !== 'cold') return null;
  // Operands that stay in a cache need not move at all.
  const moved = time.cache === 'cold' ? work : { ...work, minBytes: 0 };
  const energyFloorJ = energyFloor(moved, floorSeconds, calibration);
  return {
    ...roof,
    fraction: floorSeconds / time[time.headline]!.median,
    energyFloorJ,
    energyEfficiency: energyEfficiency(energyFloorJ, perCallJ),
  };
}

function flags(
  subject: Subject,
  time: TimeRecord,
  utilisation: { ofPeakFlops: Quantity; ofPeakBandwidth: Quantity },
  energy: EnergyRecord,
): Flag[] {
  const read = clocks.map((clock) => time[clock]).filter((record) => record !== null);
  const above = [utilisation.ofPeakFlops, utilisation.ofPeakBandwidth].some(
    ({ value }) => value !== null && value > wall,
  );
  const set: Record<Flag, boolean> = {
    'not-converged': !time[time.headline]!.stop.converged,
    stolen: read.some((record) => (record.stolenSamples ?? 0) > 0),
    'cold-not-reached': time.cache === 'warm',
    'above-peak': above,
    'in-place': subject.inPlace,
    disputed: energy.disputed.value === true,
    unsteady: energy.steady.value === false,
    'not-attributable': energy.attributable.value === false,
  };
  return (Object.keys(set) as Flag[]).filter((flag) => set[flag]);
}

/** A reading of the device's allocator. */
export interface MemoryReading {
  byteSeconds: number;
  seconds: number;
  currentBytes: number;
  peakBytes: number;
}

/** Bytes over the window between two readings, without `extra` bytes that were there throughout and do not count. */
export function memoryWindow(
  before: MemoryReading,
  after: MemoryReading,
  extra: number,
): { averageBytes: Quantity; peakBytes: Quantity } {
  const span = after.seconds - before.seconds;
  const average = span > 0 ? (after.byteSeconds - before.byteSeconds) / span : before.currentBytes;
  const steady = after.currentBytes === before.currentBytes && Math.abs(average - before.currentBytes) < 1;
  const peakBytes =
    after.peakBytes > before.peakBytes
      ? known(after.peakBytes - extra, 'B', 'highest of the allocator, reached within the window')
      : steady
        ? known(before.currentBytes - extra, 'B', 'nothing was allocated or freed within the window')
        : missing('B', `a peak of ${before.peakBytes} bytes before the window hides the one within it`);
  const basis = 'allocator of the device, integrated at every allocation';
  return { averageBytes: known(Math.max(0, Math.round(average - extra)), 'B', basis), peakBytes };
}
