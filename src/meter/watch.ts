// Everything that `kernwatt monitor` shows, one reading after the other: GPUs and CPU packages side by side, each with what was drawn
// since the reading before and since the start.
import { HostReader, type HostState } from './host.js';
import { findGpus, type GpuState, type GpusFound, readGpus } from './live.js';
import { type Mark, type Meter, type MeterDomain, openAll } from './meter.js';

/** One GPU, CPU package or part of one. What is null is not known; `missing` says why, where anything is to be said. */
export interface WatchedDomain {
  domain: string;
  /** Product name of a GPU. */
  name: string | null;
  /** Watts; `powerBasis` is `counter` for the mean since the reading before, `sensor` for a GPU's own reading of the moment. */
  power: number | null;
  powerBasis: 'counter' | 'sensor' | null;
  /** Joules since the start. */
  energy: number | null;
  /** Hertz: multiprocessors of a GPU, mean of the cores of a package. */
  clock: number | null;
  memoryClock: number | null;
  usedBytes: number | null;
  totalBytes: number | null;
  /** Share of the time in which it did anything. */
  utilisation: number | null;
  /** Degrees Celsius. */
  temperature: number | null;
  memoryTemperature: number | null;
  /** Share of the time since the reading before in which clocks were held down, by reason. */
  throttled: Record<string, number> | null;
  missing: Record<string, string>;
}

export interface Watched {
  /** Seconds since the start, and since the reading before. */
  seconds: number;
  interval: number;
  domains: WatchedDomain[];
  /** Of the machine. */
  memory: HostState['memory'];
  /** What has no reading at all. */
  unreadable: Unreadable[];
}

export interface Unreadable {
  domain: string;
  state: string;
  reason: string;
  fix: string | null;
}

/** Between two looks at the energy counters, seconds: their rhythm is to be known, not every tick. */
const polling = 5e-3;

const blank = (domain: string): WatchedDomain => ({
  domain,
  name: null,
  power: null,
  powerBasis: null,
  energy: null,
  clock: null,
  memoryClock: null,
  usedBytes: null,
  totalBytes: null,
  utilisation: null,
  temperature: null,
  memoryTemperature: null,
  throttled: null,
  missing: {},
});

/** Shares of `interval` by reason, from counters of seconds that only grow; a counter that was reset says nothing. */
class Throttling {
  readonly #before = new Map<string, Record<string, number>>();

  shares(
    domain: string,
    seconds: Readonly<Record<string, number | null>>,
    interval: number,
  ): Record<string, number> | null {
    const known = Object.entries(seconds).filter((entry): entry is [string, number] => entry[1] !== null);
    const before = this.#before.get(domain);
    this.#before.set(domain, Object.fromEntries(known));
    if (!before || known.length === 0 || interval <= 0) return null;
    return Object.fromEntries(
      known.flatMap(([reason, now]) => {
        const grown = now - (before[reason] ?? now);
        return grown < 0 ? [] : [[reason, Math.min(grown / interval, 1)]];
      }),
    );
  }
}

export class Watch {
  readonly #meter: Meter;
  readonly #gpus: GpusFound;
  readonly #host: HostReader;
  readonly #start: Mark;
  readonly #throttling = new Throttling();
  #last: Mark;

  private constructor(meter: Meter, gpus: GpusFound, host: HostReader) {
    this.#meter = meter;
    this.#gpus = gpus;
    this.#host = host;
    this.#start = meter.begin();
    this.#last = this.#start;
  }

  /** @param gpu one GPU, as openMeter() takes it; all without it. */
  static async open(sysfs: string, gpu?: string): Promise<Watch> {
    const [{ meter }, gpus] = await Promise.all([openAll(sysfs, gpu, polling), findGpus(gpu)]);
    const watch = new Watch(meter, gpus, new HostReader(sysfs));
    watch.#others(await watch.#states(), watch.#host.read(), 0);
    return watch;
  }

  /** Energies, and where there is none of them power. Resolves once the counters have ticked, 0.3 s at most. */
  async read(): Promise<Watched> {
    // Both windows end at the same moment, which is when the next one begins.
    const [states, since, total] = await Promise.all([
      this.#states(),
      this.#meter.end(this.#last),
      this.#meter.end(this.#start),
    ]);
    this.#last = { seconds: since.end };
    const interval = since.seconds;
    const host = this.#host.read();
    const rows = new Map(this.#others(states, host, interval).map((one) => [one.domain, one]));
    const unreadable: Unreadable[] = [];
    for (const [i, { domain, joules }] of since.domains.entries()) {
      const row = rows.get(domain.name) ?? blank(domain.name);
      const all = total.domains[i]!.joules;
      if (joules.value !== null) Object.assign(row, { power: joules.value / since.seconds, powerBasis: 'counter' });
      if (all.value !== null) row.energy = all.value;
      else row.missing.energy = all.reason;
      if (rows.has(row.domain) || domain.state === 'ok') rows.set(row.domain, row);
      else unreadable.push(trouble(domain));
    }
    const domains = [...rows.values()].sort(inOrder);
    return { seconds: total.seconds, interval, domains, memory: host.memory, unreadable };
  }

  /** Whether there is a GPU, or an energy counter that can be read. */
  get anything(): boolean {
    const gpus = 'gpus' in this.#gpus ? this.#gpus.gpus.length : 0;
    return gpus > 0 || this.#meter.domains.some(({ state }) => state === 'ok');
  }

  /** Why energies cannot be read. */
  get troubles(): Unreadable[] {
    return this.#meter.domains.filter(({ state }) => state !== 'ok').map(trouble);
  }

  close(): Promise<void> {
    return this.#meter.close();
  }

  #states(): Promise<GpuState[]> {
    return 'gpus' in this.#gpus ? readGpus(this.#gpus.gpus) : Promise.resolve([]);
  }

  /** Everything but energy. */
  #others(states: readonly GpuState[], { packages }: HostState, interval: number): WatchedDomain[] {
    const gpus = states.map(({ domain, name, readings: r, missing }): WatchedDomain => {
      const power = r.instantPower ?? r.averagePower ?? null;
      return {
        ...blank(domain),
        name,
        power,
        powerBasis: power === null ? null : 'sensor',
        clock: r.smClock ?? null,
        memoryClock: r.memoryClock ?? null,
        usedBytes: r.memory?.usedBytes ?? null,
        totalBytes: r.memory?.totalBytes ?? null,
        utilisation: r.utilisation?.gpu ?? null,
        temperature: r.temperature ?? null,
        memoryTemperature: r.memoryTemperature ?? null,
        throttled: this.#throttling.shares(domain, { ...r.throttle }, interval),
        missing: { ...missing },
      };
    });
    const hosts = packages.map(({ domain, throttled, ...readings }) => ({
      ...blank(domain),
      ...readings,
      throttled: this.#throttling.shares(domain, { thermal: throttled }, interval),
    }));
    return [...gpus, ...hosts];
  }
}

const trouble = ({ name, state, reason, fix }: MeterDomain): Unreadable => ({
  domain: name,
  state,
  reason: reason ?? 'unknown',
  fix,
});

/** GPUs first. */
function inOrder(a: WatchedDomain, b: WatchedDomain): number {
  const rank = ({ domain }: WatchedDomain) => (domain.startsWith('gpu') ? 0 : 1);
  return rank(a) - rank(b) || a.domain.localeCompare(b.domain, 'en', { numeric: true });
}
