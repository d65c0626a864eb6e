// CPU energy from the perf PMU `power` (RAPL through perf_event_open): packages and their memory, opened on one CPU of each. psys, core and
// GPU events are left out, as powercap's zones of these names are.
import { join } from 'node:path';
import { type CounterFound, dramScope, type Found, line, packageScope, tryCounter } from './counter.js';
import * as fixes from './fixes.js';

const events = {
  'energy-pkg': { suffix: '', covers: packageScope },
  'energy-ram': { suffix: '/dram', covers: dramScope },
};

export function findPerf(sysfs: string, virtual: boolean): Found {
  const folder = join(sysfs, 'bus/event_source/devices/power');
  const none = (reason: string, fix: string | null = null): Found => ({
    refusal: { state: 'unavailable', reason, fix },
  });
  const type = Number(line(join(folder, 'type')) ?? 'NaN');
  if (!Number.isInteger(type)) return none(`no power events in ${folder}`, virtual ? fixes.stuck : null);
  const cpus = parseList(line(join(folder, 'cpumask')) ?? '');
  if (cpus.length === 0) return none(`${join(folder, 'cpumask')} names no CPU`);
  const counters = cpus.flatMap((cpu) =>
    Object.entries(events).flatMap(([event, { suffix, covers }]): CounterFound[] => {
      const path = join(folder, 'events', event);
      const config = /^event=(0x[0-9a-f]+|\d+)$/i.exec(line(path) ?? '')?.[1];
      const scale = Number(line(`${path}.scale`) ?? 'NaN');
      if (config === undefined || !(scale > 0) || line(`${path}.unit`) !== 'Joules') return [];
      const spec = { kind: 'perf' as const, name: `perf power/${event}/`, joulesPerCount: scale, range: 0 };
      const domain = `${packageOf(sysfs, cpu, cpus)}${suffix}`;
      const whole = { ...spec, type, config: Number(config), cpu };
      return [
        {
          domain,
          source: 'perf',
          covers,
          spec: whole,
          deniedFix: fixes.perfDenied,
          refusal: tryCounter(whole, fixes.perfDenied),
        },
      ];
    }),
  );
  return counters.some(({ covers }) => covers === packageScope)
    ? { counters }
    : none(`no event energy-pkg with scale and unit in ${join(folder, 'events')}`);
}

/** `0,18`, `0-1`, `0-3,8`. */
function parseList(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [, first, last] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    if (first === undefined) return [];
    return Array.from({ length: Number(last ?? first) - Number(first) + 1 }, (_, i) => Number(first) + i);
  });
}

/** `package-0`; `package-0-die-1` where the PMU counts each die of a package. */
function packageOf(sysfs: string, cpu: number, cpus: readonly number[]): string {
  const topology = (one: number, what: string) => line(join(sysfs, `devices/system/cpu/cpu${one}/topology`, what));
  const own = topology(cpu, 'physical_package_id') ?? String(cpus.indexOf(cpu));
  const shared = cpus.filter((one) => topology(one, 'physical_package_id') === own).length > 1;
  return `package-${own}${shared ? `-die-${topology(cpu, 'die_id') ?? cpus.indexOf(cpu)}` : ''}`;
}
