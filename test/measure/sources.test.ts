// Energy sources on made-up machines: one file system each.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { loadable, probeEnergySources } from '../../src/measure/sources.js';

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
  const root = machine({ 'sys/class/powercap/intel-rapl:0/energy_uj': '100\n' });
  let energy = 100;
  const path = join(root, 'sys/class/powercap/intel-rapl:0/energy_uj');
  const timer = setInterval(() => {
    energy += 1000;
    writeFileSync(path, `${energy}\n`);
  }, 5);
  expect((await states(root)).powercap).toBe('ok');
  clearInterval(timer);
});

test('perf is judged by paranoia and capabilities', async () => {
  const events = {
    'sys/bus/event_source/devices/power/events/energy-pkg': 'event=0x02\n',
    'sys/bus/event_source/devices/power/events/energy-pkg.scale': '2.3e-10\n',
  };
  const status = (caps: string) => ({ 'proc/self/status': `Name:\tnode\nCapEff:\t${caps}\n` });
  const paranoid = (value: number) => ({ 'proc/sys/kernel/perf_event_paranoid': `${value}\n` });
  const none = '0000000000000000';
  expect((await states(machine({ ...events, ...status(none), ...paranoid(2) }))).perf).toBe('denied');
  expect((await states(machine({ ...events, ...status(none), ...paranoid(0) }))).perf).toBe('ok');
  expect((await states(machine({ ...events, ...status('0000004000000000'), ...paranoid(2) }))).perf).toBe('ok');
});

test('hwmon counts only as amd_energy', async () => {
  const file = 'sys/class/hwmon/hwmon3/energy1_input';
  expect((await states(machine({ 'sys/class/hwmon/hwmon3/name': 'coretemp\n', [file]: '7\n' }))).hwmon).toBe('missing');
  expect((await states(machine({ 'sys/class/hwmon/hwmon3/name': 'amd_energy\n', [file]: '7\n' }))).hwmon).toBe(
    'zero-stuck',
  );
});

test('a library counts as present when the loader finds it, although it is no addon', () => {
  expect(loadable('libm.so.6')).toEqual({ ok: true, detail: 'libm.so.6 loads' });
  expect(loadable('libnowhere.so.9')).toMatchObject({ ok: false, detail: expect.stringContaining('libnowhere.so.9') });
});
