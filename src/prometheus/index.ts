// `kernwatt/prometheus`: live counters for a `/metrics` page. Everything is read when it is scraped, but for energy counters, which a
// thread of the addon follows so that none wraps unseen.
import type { Device } from '../device.js';
import { KernwattError } from '../errors.js';
import { describeTool } from '../measure/environment.js';
import { findGpus, type GpuState, type GpusFound, readGpus } from '../meter/live.js';
import { gpuNames, isGpu, type Meter, openAll } from '../meter/meter.js';
import type { Pool } from '../pool.js';
import { contentType, expose, type Family, type Sample } from './text.js';

export type { Family, Sample } from './text.js';

export interface ExporterOptions {
  /** One GPU by the driver's index, UUID or PCI address. Default: all that the driver shows. */
  gpu?: string | number | undefined;
  /** Devices whose memory is exported. One that is closed meanwhile is left out from then on. */
  devices?: readonly Device[] | undefined;
  /** Pools whose load is exported, by the name that becomes the label `pool`. */
  pools?: Readonly<Record<string, Pool>> | undefined;
  /** Where a sysfs is mounted, for CPU packages. Default: `/sys`. */
  sysfs?: string | undefined;
}

/** Energy counters tick every 1 to 100 ms; nobody scrapes that often. Seconds. */
const interval = 0.25;

type Builder = [help: string, type: Family['type'], samples: Sample[]];

/** `powerCap` -> `power-cap`. */
const kebab = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** Made by openExporter(). */
export class Exporter {
  /** For the header `content-type`. */
  readonly contentType = contentType;
  readonly #meter: Meter;
  readonly #found: GpusFound;
  readonly #options: ExporterOptions;

  /** @internal Use openExporter(). */
  constructor(meter: Meter, found: GpusFound, options: ExporterOptions) {
    this.#meter = meter;
    this.#found = found;
    this.#options = options;
  }

  /** What to answer a scrape with. What is not known is not in it; comments at its end say why. */
  async metrics(): Promise<string> {
    const { families, notes } = await this.#collect();
    return expose(families, notes);
  }

  /** The same as data, for other formats and registries. */
  async families(): Promise<Family[]> {
    return (await this.#collect()).families.filter(({ samples }) => samples.length > 0);
  }

  /** Stops the meter. Idempotent; metrics() throws `DISPOSED` afterwards. */
  close(): Promise<void> {
    return this.#meter.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #collect(): Promise<{ families: Family[]; notes: string[] }> {
    const found = this.#found;
    const notes = 'gpus' in found ? [...found.refused] : [];
    const [energy, states] = await Promise.all([
      this.#energy(notes),
      'gpus' in found ? readGpus(found.gpus) : Promise.resolve([]),
    ]);
    for (const { domain, missing } of states)
      notes.push(...Object.entries(missing).map(([reading, why]) => `${domain} ${reading} is ${why}`));
    const all = { ...energy, ...gpuFamilies(states), ...this.#memory(), ...this.#pools(), ...build() };
    const families = Object.entries(all).map(([name, [help, type, samples]]) => ({
      name: `kernwatt_${name}`,
      help,
      type,
      samples,
    }));
    return { families, notes };
  }

  async #energy(notes: string[]): Promise<Record<string, Builder>> {
    const now = this.#meter.now();
    const samples: Sample[] = [];
    // Until now would wait for the next reading; this may be half a second old instead.
    const recent = { begin: now - 8 * interval, end: now - 2 * interval };
    for (const { domain, data } of await this.#meter.recording(recent)) {
      const { name, source, scope, state, reason, fix } = domain;
      const joules = data.counter.values[data.counter.values.length - 1] ?? 0;
      if (state !== 'ok') notes.push(`${name} energy is ${state}: ${reason}${fix ? `; fix: ${fix}` : ''}`);
      // A counter may yet turn out to stand still.
      else if (joules === 0) notes.push(`${name} energy is unavailable: its counter has not moved yet`);
      else samples.push({ labels: { domain: name, source: source!, scope }, value: joules });
    }
    const help =
      'Energy of a whole GPU board, CPU package or its memory, whoever used it, by its own counter; since this process began to read it.';
    return { energy_joules_total: [help, 'counter', samples] };
  }

  #memory(): Record<string, Builder> {
    const columns = { used: [], peak: [], reserved: [], limit: [], allocations: [] } as Record<string, Sample[]>;
    for (const device of this.#options.devices ?? []) {
      if (device.closed) continue;
      const use = device.memory();
      const labels = { device: device.name };
      columns.used!.push({ labels, value: use.currentBytes });
      columns.peak!.push({ labels, value: use.peakBytes });
      columns.reserved!.push({ labels, value: use.reservedBytes });
      if (use.limitBytes !== null) columns.limit!.push({ labels, value: use.limitBytes });
      columns.allocations!.push({ labels, value: use.allocations });
    }
    return {
      device_memory_used_bytes: [
        'Memory of tensors and plans of this process, by its own allocator.',
        'gauge',
        columns.used!,
      ],
      device_memory_used_peak_bytes: [
        'The most that was used at a time since the device was opened.',
        'gauge',
        columns.peak!,
      ],
      device_memory_reserved_bytes: [
        'Held from the system or the GPU: used, rounded up, or kept for reuse.',
        'gauge',
        columns.reserved!,
      ],
      device_memory_limit_bytes: ['memoryLimit of openDevice.', 'gauge', columns.limit!],
      device_memory_allocations: ['Allocations alive.', 'gauge', columns.allocations!],
    };
  }

  #pools(): Record<string, Builder> {
    const pools = Object.entries(this.#options.pools ?? {}).filter(([, pool]) => !pool.closed);
    const of = (value: (pool: Pool) => number): Sample[] =>
      pools.map(([name, pool]) => ({ labels: { pool: name, device: pool.device.name }, value: value(pool) }));
    return {
      pool_running_requests: ['Requests in flight.', 'gauge', of((pool) => pool.running)],
      pool_waiting_requests: ['Requests that wait for a slot.', 'gauge', of((pool) => pool.waiting)],
      pool_slots: ['Requests that may be in flight at a time.', 'gauge', of((pool) => pool.slots)],
      pool_queue_slots: ['Requests that may wait.', 'gauge', of((pool) => pool.queue)],
      pool_memory_bytes: ['Memory of all slots.', 'gauge', of((pool) => pool.bytes)],
    };
  }
}

function build(): Record<string, Builder> {
  const { version } = describeTool();
  return { build_info: ['Version of kernwatt.', 'gauge', [{ labels: { version }, value: 1 }]] };
}

/** Every metric of GPUs. */
function gpuFamilies(states: readonly GpuState[]): Record<string, Builder> {
  const each = (
    help: string,
    type: Family['type'],
    values: (readings: GpuState['readings']) => Readonly<Record<string, number | null | undefined>>,
    label?: string,
  ): Builder => [
    help,
    type,
    states.flatMap(({ domain, readings }) =>
      Object.entries(values(readings)).flatMap(([key, value]) =>
        value == null ? [] : [{ labels: label === undefined ? { domain } : { domain, [label]: key }, value }],
      ),
    ),
  ];
  const one = (help: string, value: (readings: GpuState['readings']) => number | null | undefined): Builder =>
    each(help, 'gauge', (readings) => ({ '': value(readings) }));
  return {
    gpu_info: [
      'Which GPU a domain is.',
      'gauge',
      states.map(({ domain, name, uuid, address }) => ({
        labels: { domain, ...(name && { name }), ...(uuid && { uuid }), ...(address && { pci: address }) },
        value: 1,
      })),
    ],
    gpu_power_watts: one('Power of the board at this moment.', (r) => r.instantPower),
    gpu_power_average_watts: one('Power of the board over the last second.', (r) => r.averagePower),
    gpu_memory_power_average_watts: one(
      'Power of its memory over the last second, part of the board.',
      (r) => r.memoryPower,
    ),
    gpu_power_limit_watts: one('Power limit in force.', (r) => r.powerLimit),
    gpu_clock_hertz: each('Clock at this moment.', 'gauge', (r) => ({ sm: r.smClock, memory: r.memoryClock }), 'clock'),
    gpu_memory_used_bytes: one('Memory in use by all processes.', (r) => r.memory?.usedBytes),
    gpu_memory_reserved_bytes: one('Memory that the driver keeps for itself.', (r) => r.memory?.reservedBytes),
    gpu_memory_size_bytes: one('Memory there is.', (r) => r.memory?.totalBytes),
    gpu_busy_ratio: one(
      'Share of the last sample period (1/6 to 1 s) in which any kernel ran; says nothing of how much of the GPU it used.',
      (r) => r.utilisation?.gpu,
    ),
    gpu_memory_busy_ratio: one(
      'Share of the last sample period in which memory was read or written.',
      (r) => r.utilisation?.memory,
    ),
    gpu_temperature_celsius: each(
      'Temperature.',
      'gauge',
      (r) => ({ gpu: r.temperature, memory: r.memoryTemperature }),
      'sensor',
    ),
    gpu_throttled_seconds_total: each(
      'Time in which clocks were held down. Reasons overlap: do not sum them.',
      'counter',
      (r) => Object.fromEntries(Object.entries(r.throttle ?? {}).map(([reason, seconds]) => [kebab(reason), seconds])),
      'reason',
    ),
  };
}

/**
 * Opens what there is to read: energy of CPU packages and GPUs, readings of GPUs, memory of devices, load of pools. Never rejects
 * because something cannot be read.
 *
 * @example http.createServer(async (_, response) => response.setHeader('content-type', exporter.contentType).end(await exporter.metrics()));
 * @throws {KernwattError} `ARGUMENT` for an option that makes no sense.
 */
export async function openExporter(options: ExporterOptions = {}): Promise<Exporter> {
  for (const name of Object.keys(options))
    if (!['gpu', 'devices', 'pools', 'sysfs'].includes(name))
      throw new KernwattError('ARGUMENT', `openExporter: ${name} is no option, expected gpu, devices, pools or sysfs`);
  const { gpu, sysfs = '/sys' } = options;
  if (gpu !== undefined && !isGpu(String(gpu)))
    throw new KernwattError('ARGUMENT', `openExporter: gpu is ${gpu}, expected ${gpuNames}`);
  const [{ meter }, found] = await Promise.all([
    openAll(sysfs, gpu === undefined ? undefined : String(gpu), interval),
    findGpus(gpu),
  ]);
  return new Exporter(meter, found, options);
}
