// CPU energy from the amd_energy sensor: sockets (Esocket); cores (Ecore), which the sockets hold, are left out. The driver
// accumulates to 64 bits, so its counters do not wrap.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Found, line, packageScope, tryCounter } from './counter.js';
import * as fixes from './fixes.js';

export function findHwmon(sysfs: string): Found {
  const all = join(sysfs, 'class/hwmon');
  const none = (reason: string): Found => ({ refusal: { state: 'unavailable', reason, fix: null } });
  let sensors: string[];
  try {
    sensors = readdirSync(all).sort();
  } catch {
    return none(`no folder ${all}`);
  }
  const sensor = sensors.find((name) => line(join(all, name, 'name')) === 'amd_energy');
  if (sensor === undefined) return none(`no amd_energy sensor in ${all}`);
  const folder = join(all, sensor);
  const counters = readdirSync(folder).flatMap((name) => {
    const number = /^energy(\d+)_input$/.exec(name)?.[1];
    const socket = /^Esocket(\d+)$/.exec(line(join(folder, `energy${number}_label`)) ?? '')?.[1];
    if (number === undefined || socket === undefined) return [];
    const path = join(folder, name);
    const spec = { kind: 'file' as const, name: path, path, joulesPerCount: 1e-6, range: 0 };
    const deniedFix = fixes.hwmonDenied(folder);
    return {
      domain: `package-${Number(socket)}`,
      source: 'hwmon' as const,
      covers: packageScope,
      spec,
      deniedFix,
      refusal: tryCounter(spec, deniedFix),
    };
  });
  if (counters.length === 0) return none(`no input of ${folder} is labelled as a socket`);
  return { counters: counters.sort((a, b) => a.domain.localeCompare(b.domain, 'en', { numeric: true })) };
}
