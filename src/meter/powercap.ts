// CPU energy from the kernel's powercap zones (RAPL; Intel, and AMD by the same driver). Packages and their memory; never psys, which
// holds the packages, nor core and uncore, which they hold. The same package by MSR and by MMIO counts once.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CounterFile, dramScope, type Found, packageScope, type Refusal, tryCounter } from './counter.js';
import * as fixes from './fixes.js';

const unavailable = (reason: string, fix: string | null): { refusal: Refusal } => ({
  refusal: { state: 'unavailable', reason, fix },
});

/** The first line of a file, or null when it cannot be read. */
export function line(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

export function findPowercap(sysfs: string, virtual: boolean): Found {
  const folder = join(sysfs, 'class/powercap');
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    return unavailable(`no folder ${folder}`, virtual ? fixes.stuck : fixes.noDriver);
  }
  const zones = names.filter((name) => /^intel-rapl(-mmio)?:\d+(:\d+)?$/.test(name));
  if (zones.length === 0)
    return unavailable(
      `no zone in ${folder}: the driver is not loaded, or a container hides it`,
      virtual ? fixes.stuck : `${fixes.noDriver}; ${fixes.hidden}`,
    );
  const nameOf = new Map(zones.map((zone) => [zone, line(join(folder, zone, 'name'))]));
  const counters = new Map<string, CounterFile>();
  // `intel-rapl:0` sorts before `intel-rapl-mmio:0` here: the first of a domain stays.
  for (const zone of zones.sort(byDriver)) {
    const file = counterOf(folder, zone, nameOf);
    if (file && !counters.has(file.domain)) counters.set(file.domain, file);
  }
  if (counters.size === 0) {
    const shown = [...nameOf.values()].filter((name) => name !== null);
    return shown.length === 0
      ? unavailable(`the zones in ${folder} lead nowhere: a container hides them`, fixes.hidden)
      : unavailable(`no package among the zones in ${folder}: ${[...new Set(shown)].join(', ')}`, null);
  }
  return { counters: [...counters.values()].map((file) => ({ file, refusal: masked(file) })) };
}

const byDriver = (a: string, b: string): number =>
  Number(a.includes('mmio')) - Number(b.includes('mmio')) || a.localeCompare(b, 'en', { numeric: true });

function counterOf(folder: string, zone: string, nameOf: Map<string, string | null>): CounterFile | null {
  const [, driver, parent, child] = /^(.+?):(\d+)(:\d+)?$/.exec(zone) ?? [];
  const own = nameOf.get(zone) ?? '';
  const above = child === undefined ? own : (nameOf.get(`${driver}:${parent}`) ?? '');
  if (!/^package-\d+(-die-\d+)?$/.test(above) || (child !== undefined && own !== 'dram')) return null;
  const range = line(join(folder, zone, 'max_energy_range_uj'));
  return {
    domain: child === undefined ? own : `${above}/dram`,
    source: 'powercap',
    scope: child === undefined ? packageScope : dramScope,
    path: join(folder, zone, 'energy_uj'),
    rangeJoules: range !== null && /^[1-9]\d*$/.test(range) ? Number(range) * 1e-6 : null,
    deniedFix: fixes.powercapDenied(folder, driver),
  };
}

/** A zone with a name and without a counter is one that a container hides. */
function masked(file: CounterFile): Refusal | null {
  const refusal = tryCounter(file);
  return refusal?.reason.includes('(ENOENT)')
    ? { ...refusal, reason: `${file.path} is not there: a container hides it`, fix: fixes.hidden }
    : refusal;
}
