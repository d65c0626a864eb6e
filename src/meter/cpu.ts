// The counters of the CPU packages, from the first source of which a package can be read: powercap, the power events of perf, then the
// amd_energy sensor.
import type { MissingState } from '../measure/quantity.js';
import { type CounterFound, type Found, packageScope, type Refusal } from './counter.js';
import { findHwmon } from './hwmon.js';
import { findPerf } from './perf.js';
import { findPowercap } from './powercap.js';

export interface SourceState {
  name: 'powercap' | 'perf' | 'hwmon' | 'nvml';
  state: 'ok' | MissingState;
  reason: string | null;
  fix: string | null;
}

export interface CpuSources {
  states: SourceState[];
  /** Of the chosen source, or why there is none. */
  found: Found;
}

export const stateOf = (name: SourceState['name'], refusal: Refusal | null): SourceState =>
  refusal ? { name, ...refusal } : { name, state: 'ok', reason: null, fix: null };

/** Why a source cannot be used at all: null as soon as one of its packages can be read. */
function refusalIn(found: Found): Refusal | null {
  if ('refusal' in found) return found.refusal;
  const packages = found.counters.filter(({ covers }: CounterFound) => covers === packageScope);
  return packages.some(({ refusal }) => refusal === null) ? null : packages[0]!.refusal;
}

/** `sysfs` is a sysfs; `virtual`: a hypervisor runs this machine, which decides what is advised. */
export function findCpu(sysfs: string, virtual: boolean): CpuSources {
  const sources = [
    ['powercap', findPowercap(sysfs, virtual)],
    ['perf', findPerf(sysfs, virtual)],
    ['hwmon', findHwmon(sysfs)],
  ] as const;
  const all = sources.map(([, found]) => found);
  // One that is there and refuses says more than one that is not there.
  const found = all.find((one) => refusalIn(one) === null) ?? all.find((one) => 'counters' in one) ?? (all[0] as Found);
  return { states: sources.map(([name, one]) => stateOf(name, refusalIn(one))), found };
}
