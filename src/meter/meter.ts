// openMeter(): energy of a GPU or of the CPU packages while this process works. One thread of the addon reads the counters; many
// meters share it. What cannot be read costs its own domain and nothing else.
import type { Device } from '../device.js';
import { boundEnergy } from '../energy/bounds.js';
import type { MeterData, MeterScope, Stretch } from '../energy/recording.js';
import { type MissingState, missing, type Quantity } from '../measure/quantity.js';
import { isVirtual } from '../measure/sources.js';
import type { Interval } from '../measure/stats.js';
import { CpuMeter } from './cpu.js';

export interface MeterOptions {
  /** What is metered: the GPU of a device, found by its PCI address, or the CPU packages. Default: the CPU packages. */
  device?: Device | 'cpu' | undefined;
  /** A GPU by PCI address, UUID or the driver's own index, instead of a device. */
  gpu?: string | number | undefined;
  /** Where a sysfs is mounted, for CPU packages. Default: `/sys`. */
  sysfs?: string | undefined;
  /** Between two looks at an energy counter, seconds. */
  intervalSeconds?: number | undefined;
}

/** One counter of energy, or the reason why there is none. */
export interface MeterDomain {
  /** `gpu:0` (the driver's index), `package-0`, `package-0/dram`; `cpu` or `gpu` where not even the number is known. */
  name: string;
  /** Null where no source was found. */
  source: 'nvml' | 'powercap' | 'perf' | 'hwmon' | null;
  scope: MeterScope['scope'];
  /** What the joules cover, in words. */
  covers: string;
  /** Whether nobody else uses what the counter covers; null when that is not known. */
  exclusive: boolean | null;
  state: 'ok' | MissingState;
  reason: string | null;
  /** The line that makes a missing number known; null when there is none or none is needed. */
  fix: string | null;
}

/** A moment, taken by begin(). */
export interface Mark {
  /** Of the meter's clock. */
  readonly seconds: number;
}

export interface DomainEnergy {
  domain: MeterDomain;
  /** Point estimate between the bounds; null, with the reason, for a window shorter than two periods of the counter. */
  joules: Quantity;
  /** No less and no more than this, as far as the counter is right; null where a tick before or after the window is missing. */
  bounds: Interval | null;
  /** Mean power reading times the length: an estimate for windows too short for the counter, never a measurement of them. */
  powerJ: Quantity;
}

export interface MeterReading extends Stretch {
  seconds: number;
  domains: DomainEnergy[];
}

/** What estimateEnergy() of `kernwatt/energy` takes, for one domain. */
export interface DomainRecording {
  domain: MeterDomain;
  data: MeterData;
  scope: MeterScope;
}

/** How long end() waits for the counters to tick once more, seconds. */
const patience = 0.25;
const pollMilliseconds = 2;

/** Made by openMeter(). Domains that cannot be read are listed with the reason; no method throws because of them. */
export class Meter {
  readonly #cpu: CpuMeter;
  readonly #timer: NodeJS.Timeout;

  /** @internal Use openMeter(). */
  constructor(options: MeterOptions) {
    this.#cpu = new CpuMeter(options.sysfs ?? '/sys', isVirtual());
    const milliseconds = options.intervalSeconds === undefined ? pollMilliseconds : 1000 * options.intervalSeconds;
    this.#timer = setInterval(() => this.#cpu.poll(() => this.now()), milliseconds).unref();
  }

  /** Every counter there is to read, in the order of readings; states as they are now. */
  get domains(): MeterDomain[] {
    return this.#cpu.between(0, 0).map(({ domain, source, scope, joules, fix }) => ({
      name: domain,
      source,
      scope: source === 'nvml' || domain === 'gpu' ? 'gpu' : 'package',
      covers: scope,
      exclusive: false,
      state: source === null ? (joules.state as MissingState) : 'ok',
      reason: source === null && 'reason' in joules ? joules.reason : null,
      fix,
    }));
  }

  /** Seconds of CLOCK_MONOTONIC, the clock of all readings and of `process.hrtime`. */
  now(): number {
    return Number(process.hrtime.bigint()) / 1e9;
  }

  /** Marks a moment. Costs a reading of the clock; any number of windows may be open. */
  begin(): Mark {
    return { seconds: this.now() };
  }

  /**
   * Energy since the mark, until now. Resolves once every counter has ticked again, 0.25 s at most, for only then the upper bound is
   * known; do not wait for it in the way of a request.
   */
  async end(mark: Mark): Promise<MeterReading> {
    const [begin, end] = [mark.seconds, this.now()];
    await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(patience, 5e-3)));
    const recordings = await this.recording({ begin, end });
    const domains = recordings.map(({ domain, data }) => {
      if (domain.state !== 'ok') {
        const none = missing('J', domain.reason ?? 'it was never read', domain.state);
        return { domain, joules: none, bounds: null, powerJ: none };
      }
      const { joules, bounds, integral } = boundEnergy(data, begin, end);
      return { domain, joules, bounds, powerJ: integral };
    });
    return { begin, end, seconds: end - begin, domains };
  }

  /** What was read from `begin` to `end`, seconds of now(), and a little before and after, for estimateEnergy(). */
  async recording(_stretch: Stretch): Promise<DomainRecording[]> {
    return this.domains.map((domain) => {
      const recorder = this.#cpu.recorders.find(({ file }) => file.domain === domain.name);
      const counter = { seconds: recorder?.seconds.slice() ?? [], values: recorder?.values.slice() ?? [] };
      return { domain, data: { counter }, scope: { scope: domain.scope, mig: false, otherProcesses: null } };
    });
  }

  /** Stops reading what no other meter reads. Idempotent. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Opens a meter of a GPU or of the CPU packages. Never rejects because something cannot be read: `meter.domains` says what is
 * there, and for what is not the reason and the fix.
 */
export async function openMeter(options: MeterOptions = {}): Promise<Meter> {
  return new Meter(options);
}
