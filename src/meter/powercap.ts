// CPU energy from the kernel's powercap zones (RAPL; Intel, and AMD by the same driver). Packages and their memory; never psys, which
// holds the packages, nor core and uncore, which they hold. The same package by MSR and by MMIO counts once.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type CounterFound, dramScope, type Found, line, packageScope, type Refusal, tryCounter } from './counter.js';
import * as fixes from './fixes.js';

const unavailable = (reason: string, fix: string | null): { refusal: Refusal } => ({
  refusal: { state: 'unavailable', reason, fix },
});

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
  const counters = new Map<string, CounterFound>();
  // `intel-rapl:0` sorts before `intel-rapl-mmio:0` here: the first of a domain stays.
  for (const zone of zones.sort(byDriver)) {
    const counter = counterOf(folder, zone, nameOf);
    if (counter && !counters.has(counter.domain)) counters.set(counter.domain, counter);
  }
  if (counters.size === 0) {
    const shown = [...nameOf.values()].filter((name) => name !== null);
    return shown.length === 0
      ? unavailable(`the zones in ${folder} lead nowhere: a container hides them`, fixes.hidden)
      : unavailable(`no package among the zones in ${folder}: ${[...new Set(shown)].join(', ')}`, null);
  }
  return { counters: [...counters.values()] };
}

const byDriver = (a: string, b: string): number =>
  Number(a.includes('mmio')) - Number(b.includes('mmio')) || a.localeCompare(b, 'en', { numeric: true });

function counterOf(folder: string, zone: string, nameOf: Map<string, string | null>): CounterFound | null {
  const [, driver, parent, child] = /^(.+?):(\d+)(:\d+)?$/.exec(zone) ?? [];
  const own = nameOf.get(zone) ?? '';
  const above = child === undefined ? own : (nameOf.get(`${driver}:${parent}`) ?? '');
  if (!/^package-\d+(-die-\d+)?$/.test(above) || (child !== undefined && own !== 'dram')) return null;
  const range = line(join(folder, zone, 'max_energy_range_uj')) ?? '';
  const path = join(folder, zone, 'energy_uj');
  const deniedFix = fixes.powercapDenied(folder, driver);
  const spec = {
    kind: 'file' as const,
    name: path,
    path,
    joulesPerCount: 1e-6,
    range: /^\d+$/.test(range) ? Number(range) : 0,
  };
  return {
    domain: child === undefined ? own : `${above}/dram`,
    source: 'powercap',
    covers: child === undefined ? packageScope : dramScope,
    spec,
    deniedFix,
    refusal: masked(path, tryCounter(spec, deniedFix)),
  };
}

/** A zone with a name and without a counter is one that a container hides. */
const masked = (path: string, refusal: Refusal | null): Refusal | null =>
  refusal?.reason.includes('(ENOENT)')
    ? { ...refusal, reason: `${path} is not there: a container hides it`, fix: fixes.hidden }
    : refusal;
