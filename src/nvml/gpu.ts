// A GPU as NVML knows it: every query of queries.ts as a promise, and the same blocking.
import { setTimeout } from 'node:timers/promises';
import { KernwattError } from '../errors.js';
import { type NvmlAnswered, type NvmlDeviceHandle, type NvmlHandle, native } from '../native.js';
import { type Capability, probe } from './capabilities.js';
import { NvmlError } from './errors.js';
import type { GpmMetric, GpmReading, GpmSample } from './gpm.js';
import { type Answering, type GpuQueries, gpuQueries, type NativeArgument, type Table } from './queries.js';
import type { GpuIdentity } from './types.js';

/** Each method as one that returns a promise. */
export type Promised<Q> = {
  [K in keyof Q]: Q[K] extends (...given: infer A) => infer R ? (...given: A) => Promise<R> : never;
};

export interface GpmOptions<M extends GpmMetric = GpmMetric> {
  /** Between the two samples; default 0.2, at least 0.1. */
  seconds?: number;
  metrics?: readonly M[];
  signal?: AbortSignal;
}

/**
 * One GPU, or one MIG device. Queries run on a thread of ours, one after the other for each GPU, so that the event loop stays free however
 * long a driver takes: most answer within a millisecond, an idle GPU may have to wake first.
 */
export interface Gpu extends GpuIdentity, Promised<Omit<GpuQueries, 'gpmMetrics'>> {
  /** As the query of that name. */
  gpmMetrics<M extends GpmMetric = GpmMetric>(
    first: GpmSample,
    second: GpmSample,
    metrics?: readonly M[],
  ): Promise<GpmReading<M>>;
  /** The same queries on the calling thread, which they block. */
  readonly sync: GpuQueries;
  /**
   * Takes two samples and gives what happened between them (Hopper and newer).
   * @throws {NvmlError} as the queries; `ARGUMENT`; the signal's reason.
   */
  gpm<M extends GpmMetric = GpmMetric>(options?: GpmOptions<M>): Promise<GpmReading<M>>;
  /** Tries every query, field and metric once and says what came of it; takes up to two seconds. Never rejects. */
  capabilities(): Promise<Capability[]>;
}

/** How queries are asked and answers finished, for a GPU or the driver as a whole. */
export class Asker implements Omit<Answering, 'where'> {
  constructor(
    readonly library: NvmlHandle,
    readonly device: NvmlDeviceHandle | null,
  ) {}

  gpu(raw: unknown): Gpu {
    return makeGpu(this.library, raw as RawGpu);
  }

  /** Both forms of the queries of a table, as two objects. */
  methods<Q>(table: Table<Q>): { promised: Promised<Q>; sync: Q } {
    const promised: Record<string, unknown> = {};
    const sync: Record<string, unknown> = {};
    for (const [name, query] of Object.entries(table as unknown as Record<string, AnyQuery>)) {
      const ask = (given: unknown[], blocking: boolean) =>
        native().nvmlAsk(this.library, this.device, query.query ?? name, query.args?.(...given) ?? [], blocking);
      const finish = (answered: NvmlAnswered, given: unknown[]) => {
        if (answered.state !== 'ok') throw new NvmlError(name, answered);
        return query.result
          ? query.result(answered.value, { where: name, gpu: (raw) => this.gpu(raw) }, ...given)
          : answered.value;
      };
      promised[name] = async (...given: unknown[]) => finish(await ask(given, false), given);
      sync[name] = (...given: unknown[]) => finish(ask(given, true) as NvmlAnswered, given);
    }
    return { promised: promised as Promised<Q>, sync: sync as Q };
  }
}

/** A query whose types its table has checked. */
interface AnyQuery {
  query?: string;
  args?: (...given: unknown[]) => NativeArgument[];
  result?: (raw: unknown, answering: Answering, ...given: unknown[]) => unknown;
}

export type RawGpu = GpuIdentity & { device: NvmlDeviceHandle };

function makeGpu(library: NvmlHandle, { device, ...identity }: RawGpu): Gpu {
  const { promised, sync } = new Asker(library, device).methods<GpuQueries>(gpuQueries);
  const gpm = async ({ seconds = 0.2, metrics, signal }: GpmOptions = {}): Promise<GpmReading> => {
    if (!(seconds >= 0.1 && seconds <= 3600))
      throw new KernwattError('ARGUMENT', `gpm: seconds is ${String(seconds)}, expected 0.1 to 3600`);
    signal?.throwIfAborted();
    const first = await promised.gpmSample();
    // A timer may fire a millisecond early, and the driver wants the whole span.
    await setTimeout(seconds * 1000 + 2, undefined, signal ? { signal } : {}).catch((error: unknown) => {
      throw signal?.aborted ? signal.reason : error;
    });
    return promised.gpmMetrics(first, await promised.gpmSample(), metrics);
  };
  const gpu = { ...identity } as Gpu;
  const methods = { ...promised, sync, gpm, capabilities: () => probe(gpu), toString: () => label(identity) };
  // Printed, a GPU is what it is, not what it can be asked.
  for (const [name, value] of Object.entries(methods)) Object.defineProperty(gpu, name, { value });
  return gpu;
}

const label = ({ name, address, uuid }: GpuIdentity): string =>
  `Gpu(${name ?? 'unknown'}, ${address ?? uuid ?? 'unknown'})`;
