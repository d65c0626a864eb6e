// One domain of energy while it is metered: a counter read by the addon, its state at any moment, and its readings. Or a domain that
// cannot be metered at all, with the reason.
import { boundEnergy } from '../energy/bounds.js';
import type { MeterData, MeterScope } from '../energy/recording.js';
import { type MissingState, missing, type Quantity } from '../measure/quantity.js';
import type { Interval } from '../measure/stats.js';
import { native, type SourceHandle } from '../native.js';
import type { SourceReadings, SourceSpec, SourceStatus } from '../native.sources.js';
import type { CounterFound, Refusal } from './counter.js';
import * as fixes from './fixes.js';

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

export interface DomainEnergy {
  domain: MeterDomain;
  /** Point estimate between the bounds; null, with the reason, for a window shorter than two periods of the counter. */
  joules: Quantity;
  /** No less and no more than this, as far as the counter is right; null where a tick before or after the window is missing. */
  bounds: Interval | null;
  /** Mean power reading times the length: an estimate for windows too short for the counter, never a measurement of them. */
  powerJ: Quantity;
}

/** What estimateEnergy() of `kernwatt/energy` takes, for one domain. */
export interface DomainRecording {
  domain: MeterDomain;
  data: MeterData;
  scope: MeterScope;
  /** Of readings before this moment (seconds of now()) only a part was kept; -Infinity while all are. */
  thinnedBefore: number;
}

/** What a domain is, whoever reads it. */
type Identity = Pick<MeterDomain, 'name' | 'source' | 'scope' | 'covers'>;

/** As long as a working counter may stand still, seconds; then it is stuck. Powered-on silicon always draws something. */
const stillSeconds = 1;

export class Domain {
  readonly #identity: Identity;
  readonly #refusal: Refusal | null;
  readonly #source: SourceHandle | null;
  readonly #deniedFix: string | null;
  /** Whether this process itself has work on the GPU. */
  readonly #own: boolean;

  private constructor(
    identity: Identity,
    { refusal = null, source = null, deniedFix = null, own = false }: Partial<DomainParts>,
  ) {
    this.#identity = identity;
    this.#refusal = refusal;
    this.#source = source;
    this.#deniedFix = deniedFix;
    this.#own = own;
  }

  /** A domain that is never read. */
  static refused(identity: Identity, refusal: Refusal): Domain {
    return new Domain(identity, { refusal });
  }

  static counter({ domain, source, covers, spec, deniedFix, refusal }: CounterFound, how: Reading): Domain {
    const identity: Identity = { name: domain, source, scope: 'package', covers };
    if (refusal) return Domain.refused(identity, refusal);
    return Domain.#open(identity, spec, how, { deniedFix });
  }

  /** A GPU by PCI address, UUID or NVML's index; `own`: this process works on it. */
  static gpu(gpu: string, own: boolean, how: Reading): Domain {
    const identity: Identity = { name: 'gpu', source: 'nvml', scope: 'gpu', covers: boardScope };
    const spec: SourceSpec = {
      kind: 'nvml',
      name: `energy counter of GPU ${gpu}`,
      gpu,
      joulesPerCount: 1e-3,
      range: 0,
    };
    return Domain.#open(identity, spec, how, { own });
  }

  static #open(identity: Identity, spec: SourceSpec, how: Reading, parts: Partial<DomainParts>): Domain {
    try {
      const source = native().openSource({ ...spec, intervalSeconds: how.intervalSeconds }, how.manual);
      return new Domain(identity, { ...parts, source });
    } catch (error) {
      return Domain.refused(identity, { state: 'unavailable', reason: (error as Error).message, fix: null });
    }
  }

  get status(): SourceStatus | null {
    return this.#source && native().sourceStatus(this.#source);
  }

  /** As it is now. */
  describe(status = this.status): MeterDomain {
    const { scope: plain, name, covers } = this.#identity;
    const gpu = status?.gpu ?? null;
    const scope = gpu?.mig ? 'physical-gpu' : plain;
    const others = scope === 'gpu' ? this.#others(status?.last ?? 0) : null;
    return {
      ...this.#identity,
      name: gpu && gpu.index >= 0 ? `gpu:${gpu.index}` : name,
      scope,
      covers: gpu?.mig ? `${covers}, of which one instance is a part` : covers,
      exclusive: scope !== 'gpu' ? false : others === null ? null : others === 0,
      ...(this.#trouble(status) ?? { state: 'ok', reason: null, fix: null }),
    };
  }

  #trouble(status: SourceStatus | null): Refusal | null {
    if (status === null) return this.#refusal;
    const { answering, trouble, polls, ticks, first, last, joules } = status;
    if (polls === 0) return { state: 'unavailable', reason: 'it was never read', fix: null };
    if (trouble && !answering) return { ...trouble, fix: this.#fix(trouble.state, status) };
    if (ticks > 0 || last - first < stillSeconds) return null;
    const reason = `the counter stays at ${joules} J over ${(last - first).toFixed(2)} s`;
    return { state: 'zero-stuck', reason, fix: this.#identity.source === 'nvml' ? null : fixes.stuck };
  }

  #fix(state: MissingState, { gpu }: SourceStatus): string | null {
    if (state === 'denied') return this.#deniedFix;
    return state === 'missing' && this.#identity.source === 'nvml' && gpu === null ? fixes.noNvml : null;
  }

  /** Other processes with work on the GPU at that moment; null when not known. */
  #others(when: number): number | null {
    const count = this.#source && native().readSource(this.#source, when, when).series.processes?.values.at(-1);
    if (count == null) return null;
    // Whether one of several is this process cannot be told: containers see other process ids.
    return this.#own ? Math.max(0, count - 1) : count === 0 ? 0 : null;
  }

  /** Reads what is due, by the clock of the caller; returns when it is due again. Of a manual source alone. */
  poll(now: number): number {
    return this.#source ? native().pollSource(this.#source, now) : Number.POSITIVE_INFINITY;
  }

  /** Whether waiting longer tells nothing more about what happened until `when`. */
  settled(when: number): boolean {
    const { status } = this;
    return status === null || !status.answering || status.ticks === 0 || status.lastTickAfter >= when;
  }

  /** Whether the counter has been seen to move twice, so that its rhythm is nearly known; or cannot be read. */
  get ready(): boolean {
    const { status } = this;
    return status === null || status.ticks >= 2 || (status.polls > 0 && !status.answering);
  }

  energy(begin: number, end: number): DomainEnergy {
    const { domain, data } = this.recording(begin, end);
    const { status } = this;
    if (!this.#source || !status) {
      const none = missing('J', domain.reason!, domain.state as MissingState);
      return { domain, joules: none, bounds: null, powerJ: none };
    }
    const { joules, bounds, integral } = boundEnergy(data, begin, end);
    const { source } = this.#identity;
    if (joules.value !== null)
      return { domain, joules: { ...joules, basis: `${source}: ${joules.basis}` }, bounds, powerJ: integral };
    const { failures, trouble } = status;
    if (status.ticks === 0 && domain.state !== 'ok')
      return { domain, joules: missing('J', domain.reason!, domain.state), bounds, powerJ: integral };
    const failed = trouble ? `; ${failures} readings failed: ${trouble.reason}` : '';
    return { domain, joules: { ...joules, reason: `${joules.reason}${failed}` }, bounds, powerJ: integral };
  }

  recording(begin: number, end: number): DomainRecording {
    const domain = this.describe();
    const readings = this.#source && native().readSource(this.#source, begin, end);
    const mig = domain.scope === 'physical-gpu';
    return {
      domain,
      data: readings ? dataOf(readings) : { counter: { seconds: [], values: [] } },
      scope: { scope: domain.scope, mig, otherProcesses: readings ? this.#mostOthers(readings, begin, end) : null },
      thinnedBefore: readings?.thinnedBefore ?? Number.NEGATIVE_INFINITY,
    };
  }

  /** The most other processes seen from a second before `begin` to `end`, which is how often they are counted. */
  #mostOthers({ series: { processes } }: SourceReadings, begin: number, end: number): number | null {
    if (!processes) return null;
    const counts = processes.values.filter((_, i) => {
      const at = processes.seconds[i]!;
      return at >= begin - processesEvery && at <= end;
    });
    const most = Math.max(...counts);
    if (counts.length === 0) return null;
    return this.#own ? Math.max(0, most - 1) : most === 0 ? 0 : null;
  }

  close(): void {
    if (this.#source) native().closeSource(this.#source);
  }
}

interface DomainParts {
  refusal: Refusal | null;
  source: SourceHandle | null;
  deniedFix: string | null;
  own: boolean;
}

export interface Reading {
  intervalSeconds: number;
  manual: boolean;
}

const boardScope = 'the board: GPU and its memory; not the host, its links or its fans';
/** How often native/meter/nvml_counter.cc counts processes, seconds. */
const processesEvery = 1;

function dataOf({ series, refused, breaks }: SourceReadings): MeterData {
  const { counter, powerInstant, powerAverage, clock, temperature, busy } = series;
  const throttle = Object.entries(series).flatMap(([name, column]) => {
    const [, reason] = /^throttle\.(.+)$/.exec(name) ?? [];
    return reason === undefined ? [] : [[reason, column] as const];
  });
  const power = powerInstant
    ? { ...powerInstant, averagedSeconds: 0 }
    : powerAverage && { ...powerAverage, averagedSeconds: 1 };
  return {
    counter: { ...counter, breaks },
    ...(power && { power }),
    ...(throttle.length > 0 && { throttleNs: Object.fromEntries(throttle) }),
    ...(clock && { clockHz: clock }),
    ...(temperature && { temperatureC: temperature }),
    ...(busy && { busyShare: busy }),
    ...((refused.clock || refused.busy) && {
      refused: { ...(refused.clock && { clockHz: refused.clock }), ...(refused.busy && { busyShare: refused.busy }) },
    }),
  };
}
