// Every query of a GPU once: its type and docstring, and how its arguments and answer cross into C++ (native/meter/nvml_query.h).
// src/nvml/gpu.ts makes the asynchronous and the blocking form of each from this table.
import { KernwattError } from '../errors.js';
import type { GpmSampleHandle, NvmlFailure } from '../native.js';
import { NvmlError } from './errors.js';
import { type GpmMetric, type GpmReading, GpmSample, gpmMetrics } from './gpm.js';
import type { Gpu } from './gpu.js';
import * as t from './types.js';

/**
 * What a GPU can be asked. A query that this GPU, driver or user cannot have an answer to throws an `NvmlError`, or rejects with it, whose
 * `state` says why; `gpu.capabilities()` tries them all. `ARGUMENT` for arguments that make no sense.
 */
export interface GpuQueries {
  memory(): t.GpuMemory;
  /** Not of MIG devices, nor of GPUs divided into them. */
  utilisation(): t.GpuUtilisation;
  /** Hertz, now. */
  clock(domain?: t.ClockDomain): number;
  /** Hertz, at most. */
  maxClock(domain?: t.ClockDomain): number;
  /** Hertz that the maker's settings boost to at most. */
  boostClock(domain?: t.ClockDomain): number;
  /** Why clocks are held down at this moment, which misses what happens between two calls: `throttle()` does not. */
  clockEvents(): t.ClockEvent[];
  /** Which of them this GPU reports at all. */
  supportedClockEvents(): t.ClockEvent[];
  /** Counters of throttled time; rejects where the driver has none of them. */
  throttle(): t.GpuThrottle;
  /** Degrees Celsius of the GPU. */
  temperature(): number;
  /** Degrees Celsius of device memory. */
  memoryTemperature(): number;
  temperatureThreshold(kind: t.TemperatureThreshold): number;
  /** 0, the fastest, to 15; null where it is not known. */
  performanceState(): number | null;
  /**
   * Joules that the board has used since the driver was loaded, by its own counter, which moves every 20 to 100 ms and starts again at 0
   * when the driver is unloaded. Of the whole GPU, whoever uses it. `estimateEnergy` (`kernwatt/energy`) makes joules with error bars of readings.
   */
  energy(): number;
  /** Watts of the board; from Ampere on (A100 excepted) an average over the last second. */
  power(): number;
  /** Watts, averaged over a second. */
  averagePower(scope?: t.PowerScope): number;
  /** Watts at this moment, as fast as the sensor is. */
  instantPower(scope?: t.PowerScope): number;
  /** Watts that are enforced now. */
  powerLimit(): number;
  powerLimits(): t.GpuPowerLimits;
  /** Any fields (NVML_FI_DEV_...) by one call, each with a state of its own and in NVML's own unit; at most 512. */
  fields(list: readonly t.FieldRequest[]): t.GpuField[];
  /** That have a compute context on this GPU. */
  processes(): t.GpuProcess[];
  /** What the driver keeps of the last seconds, oldest first, after the given time (seconds since 1970). */
  samples(kind: t.SampleKind, since?: number): t.GpuSample[];
  /** Whether the driver keeps accounts of processes; root switches that on. */
  accounting(): boolean;
  account(pid: number): t.GpuAccount;
  /** Whether this GPU counts what its units do (Hopper and newer). */
  gpmSupported(): boolean;
  gpmSample(): GpmSample;
  /** What happened between two samples that are at least 0.1 s apart; `gpu.gpm()` takes both. Rejects where none of the metrics is known. */
  gpmMetrics<M extends GpmMetric = GpmMetric>(
    first: GpmSample,
    second: GpmSample,
    metrics?: readonly M[],
  ): GpmReading<M>;
  pci(): t.GpuPci;
  vbios(): string;
  /** For example `9.0`. */
  computeCapability(): string;
  /** `hopper`, ...; the number of NVML for one that is newer than this list. */
  architecture(): t.Architecture | `architecture-${number}`;
  cores(): number;
  memoryBusBits(): number;
  pcieLink(): t.PcieLink;
  virtualisation(): t.Virtualisation;
  computeMode(): t.ComputeMode;
  /** Whether the driver stays loaded while nobody uses the GPU; where not, its energy counter starts again. */
  persistence(): boolean;
  ecc(): t.Mode;
  /** Whether the GPU is divided into MIG devices. */
  migMode(): t.Mode;
  migDevices(): Gpu[];
  /** The whole GPU that a MIG device is part of. */
  migParent(): Gpu;
  /** What a MIG device has. */
  migInstance(): t.MigInstance;
}

export type NativeArgument = number | string | GpmSampleHandle;

/** What an answer may need beside itself. */
export interface Answering {
  /** The query, for messages. */
  where: string;
  gpu(raw: unknown): Gpu;
}

interface Query<A extends unknown[], R> {
  /** Its name in C++, where that is another. */
  query?: string;
  /** What is given to what crosses; none without it. */
  args?: (...given: A) => NativeArgument[];
  /** What comes back to what the caller gets; the same without it. */
  result?: (raw: never, answering: Answering, ...given: A) => R;
}

export type Table<Q> = {
  [K in keyof Q]: Q[K] extends (...given: infer A) => infer R ? Query<A, R> : never;
};

function oneOf(where: string, name: string, given: unknown, expected: readonly string[]): number {
  const index = expected.indexOf(given as string);
  if (index < 0)
    throw new KernwattError('ARGUMENT', `${where}: ${name} is ${String(given)}, expected ${expected.join(', ')}`);
  return index;
}

function whole(where: string, name: string, given: unknown, high: number): number {
  if (!Number.isInteger(given) || (given as number) < 0 || (given as number) > high)
    throw new KernwattError(
      'ARGUMENT',
      `${where}: ${name} is ${String(given)}, expected a whole number from 0 to ${high}`,
    );
  return given as number;
}

const inDomain = (where: string) => ({
  args: (domain: t.ClockDomain = 'sm') => [oneOf(where, 'domain', domain, t.clockDomains)],
});
const inScope = (where: string) => ({
  args: (scope: t.PowerScope = 'gpu') => [oneOf(where, 'scope', scope, t.powerScopes)],
});
/** Bits that later drivers add have no name here and are left out. */
const events = { result: (bits: number) => t.clockEvents.filter((_, bit) => (bits & (1 << bit)) !== 0) };
const named = <T extends string>(list: readonly T[]) => ({
  result: (index: number, { where }: Answering): T => {
    const name = list[index];
    if (name === undefined) throw strange(where, index);
    return name;
  },
});

/** A number that this version has no name for. */
const strange = (where: string, index: number): NvmlError =>
  new NvmlError(where, {
    state: 'unavailable',
    status: 0,
    function: where,
    message: `${index}, which this version has no name for`,
  });

const most = 512;
const u32 = 2 ** 32 - 1;

function fieldArguments(list: readonly t.FieldRequest[]): number[] {
  if (!Array.isArray(list) || list.length === 0 || list.length > most)
    throw new KernwattError(
      'ARGUMENT',
      `fields: list is ${Array.isArray(list) ? `${list.length} fields` : String(list)}, expected 1 to ${most} fields`,
    );
  return list.flatMap((one: t.FieldRequest) => {
    const { field, scope = 0 } = typeof one === 'number' ? { field: one } : one;
    return [whole('fields', 'field', field, u32), whole('fields', 'scope', scope, u32)];
  });
}

const allMetrics = Object.keys(gpmMetrics) as GpmMetric[];

function sampleHandle(name: string, sample: GpmSample): GpmSampleHandle {
  if (!(sample instanceof GpmSample))
    throw new KernwattError('ARGUMENT', `gpmMetrics: ${name} is ${String(sample)}, expected a sample of gpmSample()`);
  return sample.handle;
}

export const gpuQueries: Table<GpuQueries> = {
  memory: {},
  utilisation: {},
  clock: inDomain('clock'),
  maxClock: inDomain('maxClock'),
  boostClock: inDomain('boostClock'),
  clockEvents: events,
  supportedClockEvents: events,
  throttle: {},
  temperature: {},
  memoryTemperature: {},
  temperatureThreshold: {
    args: (kind) => [oneOf('temperatureThreshold', 'kind', kind, t.temperatureThresholds)],
  },
  performanceState: {},
  energy: {},
  power: {},
  averagePower: inScope('averagePower'),
  instantPower: inScope('instantPower'),
  powerLimit: {},
  powerLimits: {},
  fields: { args: fieldArguments },
  processes: {},
  samples: {
    args: (kind, since = 0) => {
      oneOf('samples', 'kind', kind, Object.keys(t.sampleKinds));
      if (!(since >= 0 && since < 9e9))
        throw new KernwattError('ARGUMENT', `samples: since is ${String(since)}, expected seconds since 1970`);
      return [t.sampleKinds[kind], Math.round(since * 1e6)];
    },
  },
  accounting: {},
  account: { args: (pid) => [whole('account', 'pid', pid, 2 ** 22)] },
  gpmSupported: {},
  gpmSample: { result: (handle: GpmSampleHandle) => new GpmSample(handle) },
  gpmMetrics: {
    args: (first, second, metrics = allMetrics) => [
      sampleHandle('first', first),
      sampleHandle('second', second),
      ...metrics.map((metric) => {
        oneOf('gpmMetrics', 'metric', metric, allMetrics);
        return gpmMetrics[metric].id;
      }),
    ],
    result: (
      raw: ({ value: number; state: 'ok' } | ({ value: null } & NvmlFailure))[],
      { where },
      _first,
      _second,
      metrics = allMetrics,
    ) => {
      const [first] = raw;
      if (first && first.state !== 'ok' && raw.every(({ value }) => value === null)) throw new NvmlError(where, first);
      return Object.fromEntries(
        metrics.map((metric, i) => {
          const { value } = raw[i]!;
          return [metric, value === null ? null : value / gpmMetrics[metric].perUnit];
        }),
      ) as GpmReading;
    },
  },
  pci: {},
  vbios: {},
  computeCapability: {},
  architecture: {
    result: (number: keyof typeof t.architectures) => t.architectures[number] ?? (`architecture-${number}` as const),
  },
  cores: {},
  memoryBusBits: {},
  pcieLink: {},
  virtualisation: named(t.virtualisations),
  computeMode: named(t.computeModes),
  persistence: {},
  ecc: {},
  migMode: {},
  migDevices: { result: (list: unknown[], { gpu }) => list.map(gpu) },
  migParent: { result: (raw: unknown, { gpu }) => gpu(raw) },
  migInstance: {},
};
