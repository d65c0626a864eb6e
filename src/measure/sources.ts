// Which meters of energy exist on this machine and whether they can be read: probed, not assumed. A counter that can be read
// but does not advance (virtual machines answer 0) is `zero-stuck`, which is not `ok`. Reads files below `root` only.
import { readdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import * as fixes from '../meter/fixes.js';
import type { MissingState } from './quantity.js';

export interface EnergySource {
  name: 'powercap' | 'perf' | 'hwmon' | 'nvml';
  state: 'ok' | MissingState;
  detail: string;
  /** What to do about it; null when nothing is wrong or nothing can be done from here. */
  fix: string | null;
}

const list = (folder: string): string[] => {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
};

const text = (path: string): string | null => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
};

/** Reads a counter twice, 60 ms apart: every one of these advances within a few milliseconds on a running processor. */
async function advancing(paths: string[]): Promise<Pick<EnergySource, 'state' | 'detail'>> {
  const read = () => paths.map((path) => Number(readFileSync(path, 'utf8')));
  try {
    const before = read();
    await setTimeout(60);
    const stuck = read().findIndex((value, i) => value === before[i]);
    if (stuck < 0) return { state: 'ok', detail: `${paths.length} counter(s) advance` };
    return { state: 'zero-stuck', detail: `${paths[stuck]} stays at ${before[stuck]}` };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EACCES' || code === 'EPERM') return { state: 'denied', detail: message };
    return { state: 'unavailable', detail: message };
  }
}

async function powercap(root: string, virtual: boolean): Promise<EnergySource> {
  const folder = join(root, 'sys/class/powercap');
  const zones = list(folder).filter((zone) => /^intel-rapl:\d+$/.test(zone));
  if (zones.length === 0) {
    return {
      name: 'powercap',
      state: 'missing',
      detail: `no intel-rapl zone in ${folder}`,
      fix: virtual ? fixes.stuck : fixes.noDriver,
    };
  }
  const probe = await advancing(zones.map((zone) => join(folder, zone, 'energy_uj')));
  const known = { denied: fixes.powercapDenied(folder), 'zero-stuck': fixes.stuck } as const;
  return { name: 'powercap', ...probe, fix: known[probe.state as keyof typeof known] ?? null };
}

function perf(root: string, virtual: boolean): EnergySource {
  const folder = join(root, 'sys/bus/event_source/devices/power');
  const events = list(join(folder, 'events')).filter((name) => /^energy-[a-z]+$/.test(name));
  if (events.length === 0)
    return {
      name: 'perf',
      state: 'missing',
      detail: `no power events in ${folder}`,
      fix: virtual ? fixes.stuck : null,
    };
  const paranoid = Number(text(join(root, 'proc/sys/kernel/perf_event_paranoid')) ?? 'NaN');
  const effective = BigInt(
    `0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(text(join(root, 'proc/self/status')) ?? '')?.[1] ?? '0'}`,
  );
  const capable = (effective & ((1n << 38n) | (1n << 21n))) !== 0n; // CAP_PERFMON, CAP_SYS_ADMIN
  const detail = `${events.join(', ')}; perf_event_paranoid ${paranoid}`;
  if (paranoid <= 0 || capable)
    return { name: 'perf', state: 'ok', detail: `${detail}; permitted, not opened here`, fix: null };
  return { name: 'perf', state: 'denied', detail, fix: 'sudo sysctl kernel.perf_event_paranoid=0' };
}

async function hwmon(root: string): Promise<EnergySource> {
  const folder = join(root, 'sys/class/hwmon');
  const sensor = list(folder).find((name) => text(join(folder, name, 'name')) === 'amd_energy');
  if (sensor === undefined)
    return { name: 'hwmon', state: 'missing', detail: `no amd_energy sensor in ${folder}`, fix: null };
  const inputs = list(join(folder, sensor)).filter((name) => /^energy\d+_input$/.test(name));
  const probe = await advancing(inputs.map((name) => join(folder, sensor, name)));
  return {
    name: 'hwmon',
    ...probe,
    fix: probe.state === 'denied' ? fixes.hwmonDenied(`${folder}/${sensor}`) : null,
  };
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

function nvml(): EnergySource {
  const { ok, detail } = loadable('libnvidia-ml.so.1');
  return ok
    ? { name: 'nvml', state: 'ok', detail: `${detail}; counters are not read by this version`, fix: null }
    : {
        name: 'nvml',
        state: 'missing',
        detail,
        fix: 'install the NVIDIA driver (in a container: run with --gpus all)',
      };
}

/** Whether the processor says that a hypervisor runs it. */
export const isVirtual = (root = '/'): boolean =>
  /^flags\s*:.*\bhypervisor\b/m.test(text(join(root, 'proc/cpuinfo')) ?? '');

/** Probes every source of energy readings. `root` lets tests present another file system. */
export async function probeEnergySources(root = '/'): Promise<EnergySource[]> {
  const virtual = isVirtual(root);
  return [await powercap(root, virtual), perf(root, virtual), await hwmon(root), nvml()];
}
