// openMeter(): energy of a GPU or of the CPU packages while this process works. One thread of the addon reads the counters; many
// meters share it. What cannot be read costs its own domain and nothing else.
import { setTimeout } from 'node:timers/promises';
import type { Device } from '../device.js';
import type { Stretch } from '../energy/recording.js';
import { KernwattError } from '../errors.js';
import { isVirtual } from '../measure/sources.js';
import { native } from '../native.js';
import type { SamplerCost } from '../native.sources.js';
import { packageScope } from './counter.js';
import { type CpuSources, findCpu, type SourceState, stateOf } from './cpu.js';
import { Domain, type DomainEnergy, type DomainRecording, type MeterDomain, type Reading } from './domain.js';

export type { DomainEnergy, DomainRecording, MeterDomain } from './domain.js';

export interface MeterOptions {
  /** What is metered: the GPU of a device, found by its PCI address, or the CPU packages. Default: the CPU packages. */
  device?: Device | 'cpu' | undefined;
  /** A GPU by PCI address, UUID or the driver's own index (not that of CUDA), instead of a device. */
  gpu?: string | number | undefined;
  /** Where a sysfs is mounted, for CPU packages. Default: `/sys`. */
  sysfs?: string | undefined;
  /**
   * Between two looks at an energy counter, seconds, 1e-4 to 60. Default: 1 ms for a GPU, whose counter is left alone until its next tick is
   * near; 5 ms for CPU packages, whose counters tick every millisecond.
   */
  intervalSeconds?: number | undefined;
  /** @internal Nothing is read but by pollOnce(), whose clock is the meter's. */
  manual?: boolean | undefined;
}

/** A moment, taken by begin(). */
export interface Mark {
  /** Of the meter's clock. */
  readonly seconds: number;
}

export interface MeterReading extends Stretch {
  seconds: number;
  domains: DomainEnergy[];
}

export const gpuNames = 'an index, a UUID (GPU-..., MIG-...) or a PCI address (0000:17:00.0)';
export const isGpu = (name: string): boolean =>
  /^(\d+|(GPU|MIG)-.+|([0-9a-f]+:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])$/i.test(name);

/** How long openMeter() and end() wait for counters to move, seconds. */
const patience = 0.3;
/** Between two looks whether they have, milliseconds. */
const shortest = 2;
const longest = 20;

/** The driver's library may take this long to open, seconds. */
const opening = 5;

const gpuInterval = 1e-3;
const cpuInterval = 5e-3;

/** Made by openMeter(). Domains that cannot be read are listed with the reason; no method throws because of them. */
export class Meter {
  readonly #domains: readonly Domain[];
  readonly #manual: boolean;
  #time = 0;
  #closed = false;

  /** @internal Use openMeter(). */
  constructor(domains: readonly Domain[], manual: boolean) {
    this.#domains = domains;
    this.#manual = manual;
  }

  /** Every counter there is to read, in the order of readings; states as they are now. */
  get domains(): MeterDomain[] {
    this.#check('domains');
    return this.#domains.map((domain) => domain.describe());
  }

  /** Seconds of CLOCK_MONOTONIC, the clock of all readings and of `process.hrtime`. */
  now(): number {
    return this.#manual ? this.#time : Number(process.hrtime.bigint()) / 1e9;
  }

  /** Marks a moment. Costs a reading of the clock; any number of windows may be open. */
  begin(): Mark {
    this.#check('begin');
    return { seconds: this.now() };
  }

  /**
   * Energy since the mark, until now. Resolves once every counter has ticked again, 0.3 s at most, for only then the upper bound is
   * known: a server does not wait for it before it answers.
   *
   * @throws {KernwattError} `DISPOSED` after close(); `ARGUMENT` for what is no mark.
   */
  async end(mark: Mark): Promise<MeterReading> {
    this.#check('end');
    const begin = mark?.seconds;
    if (typeof begin !== 'number')
      throw new KernwattError('ARGUMENT', `end: mark is ${String(mark)}, expected what begin() returned`);
    const end = this.now();
    await this.until(() => this.#domains.every((domain) => domain.settled(end)));
    this.#check('end');
    return {
      begin,
      end,
      seconds: end - begin,
      domains: this.#domains.map((domain) => domain.energy(begin, end)),
    };
  }

  /**
   * What was read from `begin` to `end`, seconds of now(), and a little before and after, for estimateEnergy(). Waits as end() does
   * where `end` has just been.
   */
  async recording({ begin, end }: Stretch): Promise<DomainRecording[]> {
    this.#check('recording');
    await this.until(() => this.#domains.every((domain) => domain.settled(end)));
    this.#check('recording');
    return this.#domains.map((domain) => domain.recording(begin, end));
  }

  /** What all meters of this process cost together. */
  cost(): SamplerCost {
    this.#check('cost');
    return native().samplerCost();
  }

  /** @internal Reads what is due at `now`, of a manual meter; returns when something is due again. */
  pollOnce(now: number): number {
    this.#time = now;
    return Math.min(...this.#domains.map((domain) => domain.poll(now)));
  }

  /** @internal Resolves once every counter has moved twice or cannot be read; the rhythm of a counter is known after three ticks. */
  async ready(): Promise<this> {
    await this.until(() => this.#domains.every((domain) => domain.ready));
    return this;
  }

  /** @internal Resolves once `done`, or after `seconds`. */
  async until(done: () => boolean, seconds = patience): Promise<void> {
    if (this.#manual) return;
    const last = this.now() + seconds;
    for (let wait = shortest; !this.#closed && !done() && this.now() < last; wait = Math.min(2 * wait, longest))
      await setTimeout(wait);
  }

  #check(where: string): void {
    if (this.#closed) throw new KernwattError('DISPOSED', `${where}: meter is closed, expected an open one`);
  }

  /** Stops reading what no other meter reads. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const domain of this.#domains) domain.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The domains of the CPU packages, or the one that says why there are none. */
function cpuDomains({ found }: CpuSources, how: Reading): Domain[] {
  if ('refusal' in found)
    return [Domain.refused({ name: 'cpu', source: null, scope: 'package', covers: packageScope }, found.refusal)];
  return found.counters.map((counter) => Domain.counter(counter, how));
}

function chosen({ device, gpu, sysfs = '/sys' }: MeterOptions, how: Reading): Domain[] {
  if (gpu !== undefined) return [Domain.gpu(String(gpu), false, how)];
  if (device === undefined || device === 'cpu' || device.kind === 'cpu')
    return cpuDomains(findCpu(sysfs, isVirtual()), how);
  if (device.info.pci !== null && device.kind === 'cuda') return [Domain.gpu(device.info.pci, true, how)];
  const reason = `${device.name} is ${device.info.emulated ? 'emulated' : 'a device without a PCI address'}`;
  const identity = { name: 'gpu', source: null, scope: 'gpu', covers: 'the GPU' } as const;
  return [Domain.refused(identity, { state: 'unsupported', reason, fix: null })];
}

/** GPU `gpu`, or all that NVML knows; where it knows none, the one domain that says why. */
async function gpuDomains(gpu: string | undefined, how: Reading): Promise<Domain[]> {
  const first = Domain.gpu(gpu ?? '0', false, how);
  await new Meter([first], how.manual).until(() => first.status === null || first.status.polls > 0, opening);
  const others = gpu === undefined ? Math.max(0, (first.status?.gpu?.gpus ?? 0) - 1) : 0;
  return [first, ...Array.from({ length: others }, (_, i) => Domain.gpu(String(i + 1), false, how))];
}

/** A meter of everything: CPU packages and GPUs; and what became of each source. */
export async function openAll(
  sysfs: string,
  gpu: string | undefined,
  intervalSeconds: number | undefined,
): Promise<{ meter: Meter; sources: SourceState[] }> {
  const cpu = findCpu(sysfs, isVirtual());
  const gpus = await gpuDomains(gpu, { intervalSeconds: intervalSeconds ?? gpuInterval, manual: false });
  const packages = cpuDomains(cpu, { intervalSeconds: intervalSeconds ?? cpuInterval, manual: false });
  const meter = await new Meter([...packages, ...gpus], false).ready();
  const { state, reason, fix } = gpus[0]!.describe();
  return { meter, sources: [...cpu.states, stateOf('nvml', state === 'ok' ? null : { state, reason: reason!, fix })] };
}

/**
 * Opens a meter of a GPU or of the CPU packages. Never rejects because something cannot be read: `meter.domains` says what is
 * there, and for what is not the reason and the fix. Resolves once the counters have moved, 0.3 s at most.
 *
 * @throws {KernwattError} `ARGUMENT` for an option that makes no sense.
 */
export async function openMeter(options: MeterOptions = {}): Promise<Meter> {
  const { device, gpu, sysfs, intervalSeconds, manual = false } = options;
  const refuse = (name: string, received: unknown, expected: string): never => {
    throw new KernwattError('ARGUMENT', `openMeter: ${name} is ${String(received)}, expected ${expected}`);
  };
  if (device !== undefined && device !== 'cpu' && typeof device !== 'object')
    refuse('device', device, 'an open device or "cpu"');
  if (device !== undefined && gpu !== undefined) refuse('gpu', gpu, 'no gpu beside a device');
  if (sysfs !== undefined && typeof sysfs !== 'string') refuse('sysfs', sysfs, 'a folder');
  if (gpu !== undefined && !isGpu(String(gpu))) refuse('gpu', gpu, gpuNames);
  if (intervalSeconds !== undefined && !(intervalSeconds >= 1e-4 && intervalSeconds <= 60))
    refuse('intervalSeconds', intervalSeconds, 'from 1e-4 to 60');
  const ofGpu = gpu !== undefined || (typeof device === 'object' && device.kind !== 'cpu');
  const how = { intervalSeconds: intervalSeconds ?? (ofGpu ? gpuInterval : cpuInterval), manual };
  return new Meter(chosen(options, how), manual).ready();
}
