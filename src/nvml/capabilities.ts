// What of NVML works on a GPU: every query, field and metric is tried, as lists of versions and models are always out of date.
import { setTimeout } from 'node:timers/promises';
import { fixOf, NvmlError, type NvmlState } from './errors.js';
import { type GpmMetric, type GpmSample, gpmMetrics } from './gpm.js';
import type { Gpu } from './gpu.js';
import type { GpuQueries } from './queries.js';
import {
  clockDomains,
  type GpuField,
  powerScopes,
  type SampleKind,
  sampleKinds,
  temperatureThresholds,
} from './types.js';

/** `zero-stuck`: it answers, but with a counter that does not move, or a power of 0 W. */
export type CapabilityState = 'ok' | 'zero-stuck' | NvmlState;

export interface Capability {
  /** A query with its argument (`clock memory`), `field 269 software thermal`, or `gpm tensorUtilisation`. */
  name: string;
  state: CapabilityState;
  /** What it answered, or why it did not. */
  detail: string;
  /** One line that may change it; null where it is ok or nothing is known to. */
  fix: string | null;
}

/** Fields by their ids: what each counts or limits, after NVML's names. */
export const fieldNames: Readonly<Record<number, string>> = {
  74: 'throttled by power cap, ns',
  75: 'throttled by temperature, ns',
  76: 'throttled by sync boost, ns',
  77: 'throttled by board limit, ns',
  78: 'throttled by low utilisation, ns',
  79: 'throttled by reliability, ns',
  81: 'below base clocks, ns',
  82: 'memory temperature, C',
  83: 'energy, mJ',
  185: 'average power, mW',
  186: 'instant power, mW',
  187: 'least power limit, mW',
  188: 'highest power limit, mW',
  189: 'default power limit, mW',
  190: 'power limit in force, mW',
  191: 'energy, mJ',
  192: 'power limit asked for, mW',
  193: 'shutdown by T.Limit, C',
  194: 'slowdown by T.Limit, C',
  195: 'memory limit by T.Limit, C',
  196: 'GPU limit by T.Limit, C',
  269: 'throttled by software thermal, ns',
  270: 'throttled by hardware thermal, ns',
  271: 'throttled by hardware power brake, ns',
};

/** Seconds in which every energy counter there is has moved. */
const patience = 1;

type Name = keyof Omit<GpuQueries, 'energy' | 'fields' | 'account' | 'gpmSample' | 'gpmMetrics' | 'samples'>;

/** Queries that are tried with each of their arguments. */
const argumentsOf: Partial<Record<Name, readonly string[]>> = {
  clock: clockDomains,
  maxClock: clockDomains,
  boostClock: clockDomains,
  averagePower: powerScopes,
  instantPower: powerScopes,
  temperatureThreshold: temperatureThresholds,
};

const plain: readonly Name[] = [
  'power',
  'averagePower',
  'instantPower',
  'powerLimit',
  'powerLimits',
  'throttle',
  'clock',
  'maxClock',
  'boostClock',
  'clockEvents',
  'supportedClockEvents',
  'performanceState',
  'temperature',
  'memoryTemperature',
  'temperatureThreshold',
  'memory',
  'utilisation',
  'processes',
  'accounting',
  'gpmSupported',
  'pci',
  'vbios',
  'computeCapability',
  'architecture',
  'cores',
  'memoryBusBits',
  'pcieLink',
  'virtualisation',
  'computeMode',
  'persistence',
  'ecc',
  'migMode',
  'migDevices',
  'migParent',
  'migInstance',
];

const failure = (name: string, error: unknown): Capability => {
  if (!(error instanceof NvmlError)) return { name, state: 'unavailable', detail: (error as Error).message, fix: null };
  return { name, state: error.state, detail: error.detail, fix: error.fix };
};

async function attempt(name: string, ask: () => Promise<unknown>): Promise<Capability> {
  try {
    const value = await ask();
    const powerless = value === 0 && /^(power|averagePower|instantPower)\b/.test(name);
    return powerless
      ? { name, state: 'zero-stuck', detail: '0 W, which no GPU that answers draws', fix: null }
      : { name, state: 'ok', detail: typeof value === 'string' ? value : JSON.stringify(value), fix: null };
  } catch (error) {
    return failure(name, error);
  }
}

/** Whether the counter moves. `seconds`: how long it has for that. */
export async function probeEnergy(gpu: Gpu, seconds = patience): Promise<Capability> {
  const name = 'energy';
  try {
    const first = await gpu.energy();
    const until = performance.now() + seconds * 1000;
    do {
      await setTimeout(10);
      const next = await gpu.energy();
      if (next !== first)
        return { name, state: 'ok', detail: `${next} J since the driver was loaded; moves`, fix: null };
    } while (performance.now() < until);
    return { name, state: 'zero-stuck', detail: `stays at ${first} J for ${seconds} s`, fix: null };
  } catch (error) {
    return failure(name, error);
  }
}

async function probeFields(gpu: Gpu): Promise<Capability[]> {
  const nameOf = (field: number) => `field ${field} ${fieldNames[field]}`;
  const ids = Object.keys(fieldNames).map(Number);
  try {
    return (await gpu.fields(ids)).map(({ field, state, status, value, detail }: GpuField) => ({
      name: nameOf(field),
      state,
      detail: value === null ? detail : String(value),
      fix: fixOf({ function: 'nvmlDeviceGetFieldValues', status }),
    }));
  } catch (error) {
    return ids.map((field) => failure(nameOf(field), error));
  }
}

async function probeGpm(gpu: Gpu): Promise<Capability[]> {
  const names = Object.keys(gpmMetrics) as GpmMetric[];
  let samples: [GpmSample, GpmSample];
  try {
    const first = await gpu.gpmSample();
    await setTimeout(120);
    samples = [first, await gpu.gpmSample()];
  } catch (error) {
    return names.map((metric) => failure(`gpm ${metric}`, error));
  }
  return Promise.all(
    names.map((metric) => attempt(`gpm ${metric}`, async () => (await gpu.gpmMetrics(...samples, [metric]))[metric])),
  );
}

/** Tries everything. */
export async function probe(gpu: Gpu): Promise<Capability[]> {
  const queries = plain.flatMap((name) => {
    const ask = gpu[name] as (argument?: string) => Promise<unknown>;
    const list = argumentsOf[name];
    return list
      ? list.map((argument) => attempt(`${name} ${argument}`, () => ask(argument)))
      : [attempt(name, async () => summary(await ask()))];
  });
  const samples = (Object.keys(sampleKinds) as SampleKind[]).map((kind) =>
    attempt(`samples ${kind}`, async () => `${(await gpu.samples(kind)).length} kept`),
  );
  const single = await Promise.all([probeEnergy(gpu), ...queries, ...samples]);
  return [...single, ...(await probeFields(gpu)), ...(await probeGpm(gpu))];
}

/** Lists of GPUs and processes as their length. */
function summary(value: unknown): unknown {
  if (Array.isArray(value) && value.some((one) => typeof one === 'object')) return `${value.length} found`;
  return typeof value === 'object' && value !== null && 'uuid' in value ? value.uuid : value;
}
