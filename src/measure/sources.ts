// Which meters of energy exist on this machine and whether they can be read: probed, not assumed. A counter that can be read
// but does not advance (virtual machines answer 0) is `zero-stuck`, which is not `ok`. Counters are found below `root` only.
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { type Found, packageScope, reader } from '../meter/counter.js';
import * as fixes from '../meter/fixes.js';
import { findHwmon } from '../meter/hwmon.js';
import { findPerf } from '../meter/perf.js';
import { findPowercap } from '../meter/powercap.js';
import { probeEnergy } from '../nvml/capabilities.js';
import { NvmlError } from '../nvml/errors.js';
import { openNvml } from '../nvml/open.js';
import type { MissingState } from './quantity.js';

export interface EnergySource {
  name: 'powercap' | 'perf' | 'hwmon' | 'nvml';
  state: 'ok' | MissingState;
  detail: string;
  /** What to do about it; null when nothing is wrong or nothing can be done from here. */
  fix: string | null;
}

const text = (path: string): string | null => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
};

/** Counters are read twice, so far apart, milliseconds: every one advances within a few on a running processor. */
const apart = 60;

/** What became of the counters of one source, package by package; memory is not needed for `ok`. */
async function probe(name: EnergySource['name'], found: Found): Promise<EnergySource> {
  if ('refusal' in found) return { name, state: 'missing', detail: found.refusal.reason, fix: found.refusal.fix };
  const packages = found.counters.filter(({ covers }) => covers === packageScope);
  const refused = packages.find(({ refusal }) => refusal !== null)?.refusal;
  if (refused) return { name, state: refused.state, detail: refused.reason, fix: refused.fix };
  const read = packages.map(({ spec }) => reader(spec));
  try {
    const before = read.map((count) => count());
    await setTimeout(apart);
    const stuck = read.findIndex((count, i) => count() === before[i]);
    if (stuck < 0) return { name, state: 'ok', detail: `${packages.length} counter(s) advance`, fix: null };
    const detail = `${packages[stuck]!.spec.name} stays at ${before[stuck]}`;
    return { name, state: 'zero-stuck', detail, fix: fixes.stuck };
  } catch (error) {
    return { name, state: 'unavailable', detail: (error as Error).message, fix: null };
  }
}

/** Whether the dynamic loader finds a shared library. It is loaded and released; it need not be a Node addon. */
export function loadable(soname: string): { ok: boolean; detail: string } {
  try {
    process.dlopen({ exports: {} }, soname, constants.dlopen.RTLD_LAZY);
    return { ok: true, detail: `${soname} loads` };
  } catch (error) {
    const message = (error as Error).message;
    // Loaded, and then refused by Node because it registers no module: exactly what a plain library does.
    if (/self-register/.test(message)) return { ok: true, detail: `${soname} loads` };
    return { ok: false, detail: message };
  }
}

/** Of every GPU that NVML knows: `ok` when one of them counts, otherwise what is wrong with the first. */
async function nvml(): Promise<EnergySource> {
  const name = 'nvml';
  try {
    const opened = await openNvml();
    const [gpus, refused] = await Promise.all([opened.devices(), opened.refused()]);
    const probed = await Promise.all(
      gpus.map(async (gpu) => {
        const { state, detail, fix } = await probeEnergy(gpu);
        return { state, detail: `${gpu.name} ${gpu.address}: ${detail}`, fix };
      }),
    );
    const all = [...probed, ...refused.map(({ state, reason }) => ({ state, detail: reason, fix: null }))];
    const first = all.find(({ state }) => state === 'ok') ?? all[0];
    if (!first) return { name, state: 'missing', detail: `${opened.path} shows no GPU`, fix: fixes.noGpu };
    const state = first.state === 'lost' ? 'unavailable' : first.state;
    return { name, state, detail: all.map(({ detail }) => detail).join('; '), fix: first.fix };
  } catch (error) {
    if (error instanceof NvmlError && error.state !== 'lost')
      return { name, state: error.state, detail: error.detail, fix: error.fix };
    const detail = (error as Error).message.split('\n', 1)[0]!;
    return { name, state: 'unavailable', detail, fix: null };
  }
}

/** Whether the processor says that a hypervisor runs it. */
export const isVirtual = (root = '/'): boolean =>
  /^flags\s*:.*\bhypervisor\b/m.test(text(join(root, 'proc/cpuinfo')) ?? '');

/** Probes every source of energy readings. `root` lets tests present another file system. */
export async function probeEnergySources(root = '/'): Promise<EnergySource[]> {
  const sysfs = join(root, 'sys');
  const virtual = isVirtual(root);
  const found = {
    powercap: findPowercap(sysfs, virtual),
    perf: findPerf(sysfs, virtual),
    hwmon: findHwmon(sysfs),
  };
  const names = ['powercap', 'perf', 'hwmon'] as const;
  return [...(await Promise.all(names.map((name) => probe(name, found[name])))), await nvml()];
}
