// CPU energy between two moments, from the first source that can be read: powercap, then the amd_energy sensor. One entry for each
// domain, with bounds or the reason why there is no number.
import { boundEnergy } from '../energy/bounds.js';
import { type Missing, missing, type Quantity } from '../measure/quantity.js';
import type { Interval } from '../measure/stats.js';
import { type Found, packageScope, Recorder, type Refusal } from './counter.js';
import * as fixes from './fixes.js';
import { findHwmon } from './hwmon.js';
import { findPowercap } from './powercap.js';

export interface DomainEnergy {
  domain: string;
  source: 'powercap' | 'hwmon' | 'nvml' | null;
  /** What the joules cover. */
  scope: string;
  joules: Quantity;
  bounds: Interval | null;
  /** The line that makes a missing number known; null when there is none or none is needed. */
  fix: string | null;
}

export interface SourceState {
  name: 'powercap' | 'perf' | 'hwmon' | 'nvml';
  state: 'ok' | Missing['state'];
  reason: string | null;
  fix: string | null;
}

const noPerf: SourceState = {
  name: 'perf',
  state: 'unsupported',
  reason: 'the power events are opened by perf_event_open, a system call that this version does not make',
  fix: null,
};

const noNvml: SourceState = {
  name: 'nvml',
  state: 'unsupported',
  reason: 'this version has no meter of GPU energy',
  fix: null,
};

const gpu: DomainEnergy = {
  domain: 'gpu',
  source: null,
  scope: 'GPUs',
  joules: missing('J', noNvml.reason!, noNvml.state as Missing['state']),
  bounds: null,
  fix: null,
};

const stateOf = (name: SourceState['name'], found: Found): SourceState => {
  const refusal = refusalIn(found);
  return refusal ? { name, ...refusal } : { name, state: 'ok', reason: null, fix: null };
};

/** Why a source cannot be used at all: null as soon as one of its packages can be read. */
function refusalIn(found: Found): Refusal | null {
  if ('refusal' in found) return found.refusal;
  const packages = found.counters.filter(({ file }) => file.scope === packageScope);
  return packages.some(({ refusal }) => refusal === null) ? null : packages[0]!.refusal;
}

export class CpuMeter {
  readonly sources: SourceState[];
  readonly recorders: Recorder[] = [];
  private readonly refused: DomainEnergy[] = [];

  /** `sysfs` is a sysfs; `virtual`: a hypervisor runs this machine, which decides what is advised. Reads nothing else. */
  constructor(sysfs: string, virtual: boolean) {
    const powercap = findPowercap(sysfs, virtual);
    const hwmon = findHwmon(sysfs);
    this.sources = [stateOf('powercap', powercap), noPerf, stateOf('hwmon', hwmon), noNvml];
    // One that is there and refuses says more than one that is not there.
    const chosen =
      [powercap, hwmon].find((found) => refusalIn(found) === null) ??
      [powercap, hwmon].find((found) => 'counters' in found) ??
      powercap;
    if ('refusal' in chosen) {
      this.refuse({ domain: 'cpu', source: null, scope: packageScope }, chosen.refusal);
      return;
    }
    for (const { file, refusal } of chosen.counters) {
      if (refusal) this.refuse(file, refusal);
      else this.recorders.push(new Recorder(file));
    }
  }

  private refuse({ domain, source, scope }: Pick<DomainEnergy, 'domain' | 'source' | 'scope'>, why: Refusal): void {
    const joules = missing('J', why.reason, why.state);
    this.refused.push({ domain, source, scope, joules, bounds: null, fix: why.fix });
  }

  /** Reads every counter once. `clock` gives seconds and never goes back. */
  poll(clock: () => number): void {
    for (const recorder of this.recorders) recorder.poll(clock());
  }

  /** Whether every counter that still answers has moved `times` since `from`, its count of ticks then. */
  moved(times: number, from: readonly number[] = []): boolean {
    return this.recorders.every(({ ticks, lost }, i) => lost !== null || ticks - (from[i] ?? 0) >= times);
  }

  /** Energy of every domain from `begin` to `end`, seconds of the clock of `poll`; the GPU last. */
  between(begin: number, end: number): DomainEnergy[] {
    return [...this.recorders.map((recorder) => energyOf(recorder, begin, end)), ...this.refused, gpu];
  }
}

function energyOf(recorder: Recorder, begin: number, end: number): DomainEnergy {
  const { file, lost, failure, failures, seconds, values, first, ticks } = recorder;
  const { domain, source, scope, path } = file;
  const none = (joules: Missing, fix: string | null = null): DomainEnergy => ({
    domain,
    source,
    scope,
    joules,
    bounds: null,
    fix,
  });
  if (lost !== null) return none(missing('J', lost));
  if (first === null) return none(missing('J', failure?.reason ?? 'it was never read', failure?.state), failure?.fix);
  if (ticks === 0) {
    const over = (seconds.at(-1)! - first.time).toFixed(2);
    return none(missing('J', `${path} stays at ${first.raw} J over ${over} s`, 'zero-stuck'), fixes.stuck);
  }
  const { joules, bounds } = boundEnergy({ counter: { seconds, values } }, begin, end);
  if (joules.value !== null)
    return {
      domain,
      source,
      scope,
      joules: { ...joules, basis: `${source} ${path}: ${joules.basis}` },
      bounds,
      fix: null,
    };
  const failed = failure ? `; ${failures} readings failed: ${failure.reason}` : '';
  return { ...none({ ...joules, reason: `${joules.reason}${failed}` }, failure?.fix), bounds };
}
