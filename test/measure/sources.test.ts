// Energy sources on made-up machines: one file system each.
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { loadable, probeEnergySources } from '../../src/measure/sources.js';
import { power, unprivileged } from '../meter/tree.js';

const roots: string[] = [];
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

function machine(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'kernwatt-'));
  roots.push(root);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

const states = async (root: string) =>
  Object.fromEntries((await probeEnergySources(root)).map(({ name, state }) => [name, state]));

test('a machine without meters says missing everywhere, with what to do', async () => {
  const sources = await probeEnergySources(machine({ 'proc/cpuinfo': 'flags\t\t: fpu hypervisor sse\n' }));
  expect(sources.map(({ name }) => name)).toEqual(['powercap', 'perf', 'hwmon', 'nvml']);
  for (const { name, state, detail } of sources.slice(0, 3)) {
    expect(state, name).toBe('missing');
    expect(detail).not.toBe('');
  }
  expect(sources[0]!.fix).toMatch(/virtual machine/);
  const bare = await probeEnergySources(machine({ 'proc/cpuinfo': 'flags\t\t: fpu sse\n' }));
  expect(bare[0]!.fix).toMatch(/modprobe/);
});

test('a counter that stays at zero is zero-stuck, not ok', async () => {
  const root = machine({
    'sys/class/powercap/intel-rapl:0/name': 'package-0\n',
    'sys/class/powercap/intel-rapl:0/energy_uj': '0\n',
    'sys/class/powercap/intel-rapl:0:0/energy_uj': '0\n',
  });
  const [powercap] = await probeEnergySources(root);
  expect(powercap).toMatchObject({ state: 'zero-stuck', detail: expect.stringContaining('stays at 0') });
});

test('a counter that advances is ok', async () => {
  const root = machine({
    'sys/class/powercap/intel-rapl:0/name': 'package-0\n',
    'sys/class/powercap/intel-rapl:0/energy_uj': '100\n',
  });
  let energy = 100;
  const path = join(root, 'sys/class/powercap/intel-rapl:0/energy_uj');
  const timer = setInterval(() => {
    energy += 1000;
    writeFileSync(`${path}.new`, `${energy}\n`);
    renameSync(`${path}.new`, path);
  }, 5);
  expect((await states(root)).powercap).toBe('ok');
  clearInterval(timer);
});

test('perf is ok when its event opens and counts', async () => {
  const events = 'sys/bus/event_source/devices/power/events/energy-pkg';
  const software = Object.fromEntries(Object.entries(power('0')).map(([path, text]) => [`sys/${path}`, text]));
  const open = (await probeEnergySources(machine(software)))[1]!;
  expect(open).toMatchObject({ name: 'perf', state: process.geteuid!() === 0 ? 'ok' : 'denied' });
  const denied = (await unprivileged(() => probeEnergySources(machine(software))))[1]!;
  expect(denied).toMatchObject({ state: 'denied', fix: 'sudo sysctl kernel.perf_event_paranoid=0' });
  expect(denied.detail).toMatch(/^perf power\/energy-pkg\/ on CPU 0 may not be opened \(E(ACCES|PERM)\)$/);
  const none = (await probeEnergySources(machine({ ...software, [`${events}.unit`]: 'Watts\n' })))[1]!;
  expect(none).toMatchObject({ state: 'missing', detail: expect.stringContaining('no event energy-pkg') });
  const unknown = { ...software, 'sys/bus/event_source/devices/power/type': '4000000\n' };
  expect((await probeEnergySources(machine(unknown)))[1]).toMatchObject({ state: 'unsupported', fix: null });
});

test('hwmon counts only as amd_energy, and only sockets', async () => {
  const file = 'sys/class/hwmon/hwmon3/energy1_input';
  const name = (name: string) => ({ 'sys/class/hwmon/hwmon3/name': `${name}\n`, [file]: '7\n' });
  const label = (label: string) => ({ 'sys/class/hwmon/hwmon3/energy1_label': `${label}\n` });
  expect((await states(machine({ ...name('coretemp'), ...label('Esocket0') }))).hwmon).toBe('missing');
  expect((await states(machine({ ...name('amd_energy'), ...label('Ecore000') }))).hwmon).toBe('missing');
  expect((await states(machine({ ...name('amd_energy'), ...label('Esocket0') }))).hwmon).toBe('zero-stuck');
});

test('a library counts as present when the loader finds it, although it is no addon', () => {
  expect(loadable('libm.so.6')).toEqual({ ok: true, detail: 'libm.so.6 loads' });
  expect(loadable('libnowhere.so.9')).toMatchObject({ ok: false, detail: expect.stringContaining('libnowhere.so.9') });
});
