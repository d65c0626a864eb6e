// CPU energy on made-up machines with known truth: every state a counter can be in. Time is given, not waited for.
import { chmodSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { probeEnergySources } from '../../src/measure/sources.js';
import { CpuMeter } from '../../src/meter/cpu.js';
import { temporary, tree, unprivileged, write, zone } from './tree.js';

const energyUj = 'class/powercap/intel-rapl:0/energy_uj';

/** Polls every 10 ms from 0 to 1 s; the counter in `path` is what `microjoules(time)` says. Meters 0.2 s to 0.8 s. */
function metered(root: string, microjoules: (time: number) => number | string, path = energyUj, virtual = false) {
  write(root, path, `${microjoules(0)}\n`);
  const meter = new CpuMeter(root, virtual);
  for (let i = 0; i <= 100; i++) {
    write(root, path, `${microjoules(i / 100)}\n`);
    meter.poll(() => i / 100);
  }
  return meter.between(0.2, 0.8);
}

const refusal = (root: string, virtual = false) => new CpuMeter(root, virtual).between(0, 1)[0]!;
/** 50 W. */
const steady = (time: number) => Math.round(1e9 + 50e6 * time);

test('packages and their memory are metered, each by itself; psys, core and duplicates are not', () => {
  const root = tree({
    ...zone('intel-rapl:0', 'package-0'),
    ...zone('intel-rapl:0:0', 'core'),
    ...zone('intel-rapl:0:1', 'uncore'),
    ...zone('intel-rapl:0:2', 'dram'),
    ...zone('intel-rapl:1', 'package-1-die-0'),
    ...zone('intel-rapl:2', 'psys'),
    ...zone('intel-rapl:2:0', 'dram'),
    ...zone('intel-rapl-mmio:0', 'package-0'),
    'class/powercap/dtpm/name': 'package-7\n',
  });
  const meter = new CpuMeter(root, false);
  const files = meter.recorders.map(({ file }) => [file.domain, file.path.slice(root.length), file.rangeJoules]);
  const at = (id: string) => `/class/powercap/${id}/energy_uj`;
  expect(files).toEqual([
    ['package-0', at('intel-rapl:0'), 262143.32885],
    ['package-0/dram', at('intel-rapl:0:2'), 262143.32885],
    ['package-1-die-0', at('intel-rapl:1'), 262143.32885],
  ]);
  expect(meter.recorders[0]!.file.scope).toBe('CPU packages: the whole socket, not this process alone');
  expect(meter.sources.map(({ name, state }) => [name, state])).toEqual([
    ['powercap', 'ok'],
    ['perf', 'unsupported'],
    ['hwmon', 'unavailable'],
    ['nvml', 'unsupported'],
  ]);
  expect(meter.sources[1]!.reason).toMatch(/perf_event_open/);
});

test('a package that only MMIO shows is metered', () => {
  const meter = new CpuMeter(tree(zone('intel-rapl-mmio:0', 'package-0')), false);
  expect(meter.recorders.map(({ file }) => file.path)).toEqual([expect.stringContaining('intel-rapl-mmio:0')]);
});

test('energy between two moments lies within its bounds and says where it comes from', () => {
  const [cpu, gpu] = metered(tree(zone('intel-rapl:0', 'package-0')), steady);
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  expect(cpu!.bounds![0]).toBeLessThanOrEqual(30);
  expect(cpu!.bounds![0]).toBeGreaterThan(28);
  expect(cpu!.bounds![1]).toBeGreaterThanOrEqual(30);
  expect(cpu!.bounds![1]).toBeLessThan(32);
  expect(cpu!.joules).toMatchObject({
    unit: 'J',
    state: 'ok',
    basis: expect.stringMatching(/^powercap .*energy_uj: /),
  });
  expect(gpu).toMatchObject({ domain: 'gpu', joules: { value: null, state: 'unsupported' }, bounds: null });
});

test('a counter that wraps goes on', () => {
  const range = 262143328850;
  const [cpu] = metered(tree(zone('intel-rapl:0', 'package-0')), (time) => (range - 20e6 + 50e6 * time) % range);
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  expect(cpu!.bounds![1] - cpu!.bounds![0]).toBeLessThan(3);
});

test.each([
  ['far from its end', 1e9, 262143328850],
  ['and whose end is not known', 262143e6, 0],
])('a counter that goes back %s was reset', (_, start, range) => {
  const root = tree(zone('intel-rapl:0', 'package-0', 0, range));
  const [cpu] = metered(root, (time) => (time < 0.5 ? start + 50e6 * time : 50e6 * time));
  expect(cpu).toMatchObject({ joules: { value: null, state: 'unavailable' }, bounds: null });
  expect(cpu!.joules).toMatchObject({ reason: expect.stringMatching(/went back from .* J to 25 J .* reset$/) });
});

test('a pause long enough for a wrap to go unseen leaves nothing known', () => {
  const root = tree(zone('intel-rapl:0', 'package-0', 1e6, 65532610987));
  const meter = new CpuMeter(root, false);
  for (const [time, microjoules] of [
    [0, 1e6],
    [0.1, 2e6],
    [0.2, 3e6],
    [40.2, 4e6],
    [40.3, 5e6],
  ] as const) {
    write(root, energyUj, `${microjoules}\n`);
    meter.poll(() => time);
  }
  expect(meter.between(0.15, 40.25)[0]!.joules).toMatchObject({
    value: null,
    reason: expect.stringMatching(/no reading for 40.0 s.*wrapped unseen/),
  });
});

test.each([0, 123456789])('a counter that stays at %d is zero-stuck, never 0 J', (microjoules) => {
  const [cpu] = metered(tree(zone('intel-rapl:0', 'package-0')), () => microjoules);
  expect(cpu).toMatchObject({ joules: { value: null, state: 'zero-stuck' }, bounds: null });
  expect(cpu!.joules).toMatchObject({ reason: expect.stringMatching(/stays at .* J over 1\.00 s/) });
  expect(cpu!.fix).toMatch(/virtual machine/);
});

test('a counter that may not be read is denied, with the line that doctor prints', async () => {
  const root = temporary();
  const sys = join(root, 'sys');
  for (const [path, text] of Object.entries(zone('intel-rapl:0', 'package-0'))) write(sys, path, text);
  chmodSync(root, 0o755);
  chmodSync(join(sys, energyUj), process.geteuid!() === 0 ? 0o400 : 0);
  const cpu = unprivileged(() => refusal(sys));
  expect(cpu).toMatchObject({ domain: 'package-0', source: 'powercap', joules: { value: null, state: 'denied' } });
  expect(cpu.joules).toMatchObject({ reason: expect.stringContaining('EACCES') });
  const [doctor] = await unprivileged(() => probeEnergySources(root));
  expect(doctor).toMatchObject({ state: 'denied' });
  expect(cpu.fix).toBe(doctor!.fix);
  expect(cpu.fix).toMatch(/^sudo chmod a\+r .*energy_uj$/);
});

test('memory that may not be read does not take the package with it', () => {
  const root = tree({ ...zone('intel-rapl:0', 'package-0'), ...zone('intel-rapl:0:0', 'dram', 'none') });
  const [cpu, dram] = metered(root, steady);
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  expect(dram).toMatchObject({ domain: 'package-0/dram', joules: { value: null, state: 'unavailable' } });
  expect(dram!.joules).toMatchObject({ reason: expect.stringContaining('holds "none", expected microjoules') });
});

test('what a container hides is named as such, whichever way it hides it', () => {
  const empty = temporary();
  mkdirSync(join(empty, 'class/powercap'), { recursive: true });
  const dangling = temporary();
  mkdirSync(join(dangling, 'class/powercap'), { recursive: true });
  symlinkSync('../../devices/virtual/powercap/intel-rapl:0', join(dangling, 'class/powercap/intel-rapl:0'));
  const without = tree(zone('intel-rapl:0', 'package-0'));
  rmSync(join(without, energyUj));
  for (const root of [empty, dangling, without]) {
    const cpu = refusal(root);
    expect(cpu).toMatchObject({ joules: { value: null, state: 'unavailable' }, bounds: null });
    expect(cpu.joules).toMatchObject({ reason: expect.stringContaining('a container hides') });
    expect(cpu.fix).toMatch(/--sysfs \/host\/sys/);
  }
});

test('no counter at all is unavailable, with what can be done', () => {
  const cpu = refusal(temporary());
  expect(cpu).toMatchObject({ domain: 'cpu', source: null, joules: { value: null, state: 'unavailable' } });
  expect(cpu.joules).toMatchObject({ reason: expect.stringMatching(/no folder .*powercap/) });
  expect(cpu.fix).toMatch(/modprobe/);
  expect(refusal(temporary(), true).fix).toMatch(/virtual machine/);
  expect(refusal(tree(zone('intel-rapl:0', 'psys'))).joules).toMatchObject({ reason: expect.stringMatching(/psys$/) });
});

test('a counter that fails half-way costs its number and nothing else', () => {
  const root = tree({ ...zone('intel-rapl:0', 'package-0'), ...zone('intel-rapl:1', 'package-1') });
  const second = 'class/powercap/intel-rapl:1/energy_uj';
  const meter = new CpuMeter(root, false);
  for (let i = 0; i <= 100; i++) {
    write(root, energyUj, `${steady(i / 100)}`);
    write(root, second, i < 50 ? `${steady(i / 100)}` : 'gone');
    meter.poll(() => i / 100);
  }
  const [one, two] = meter.between(0.2, 0.8);
  expect(one!.joules.value).toBeCloseTo(30, 0);
  expect(two!.joules).toMatchObject({ value: null, reason: expect.stringMatching(/51 readings failed: .*"gone"/) });
});

test('hours of readings take little memory and keep their sum', () => {
  const root = tree(zone('intel-rapl:0', 'package-0'));
  const meter = new CpuMeter(root, false);
  for (let i = 0; i <= 10_000; i++) {
    write(root, energyUj, `${steady(i / 100)}`);
    meter.poll(() => i / 100);
  }
  expect(meter.recorders[0]!.seconds.length).toBeLessThanOrEqual(4096);
  const { joules, bounds } = meter.between(0.2, 99.8)[0]!;
  expect(joules.value).toBeCloseTo(50 * 99.6, 0);
  expect(bounds![1] - bounds![0]).toBeLessThan(3);
});

const amd = {
  'class/hwmon/hwmon0/name': 'coretemp\n',
  'class/hwmon/hwmon3/name': 'amd_energy\n',
  'class/hwmon/hwmon3/energy1_label': 'Ecore000\n',
  'class/hwmon/hwmon3/energy1_input': '5\n',
  'class/hwmon/hwmon3/energy65_label': 'Esocket0\n',
  'class/hwmon/hwmon3/energy65_input': '5\n',
};
const socket = 'class/hwmon/hwmon3/energy65_input';

test('sockets of amd_energy stand in where powercap cannot be read', () => {
  const [cpu, gpu] = metered(tree(amd), steady, socket);
  expect(cpu).toMatchObject({ domain: 'package-0', source: 'hwmon' });
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  expect(gpu!.domain).toBe('gpu');
  const both = tree({ ...amd, ...zone('intel-rapl:0', 'package-0') });
  expect(metered(both, steady)[0]!.source).toBe('powercap');
  rmSync(join(both, energyUj));
  expect(new CpuMeter(both, false).recorders.map(({ file }) => file.source)).toEqual(['hwmon']);
});

test('amd_energy without a socket is unavailable', () => {
  const { [socket]: _, ...cores } = amd;
  expect(new CpuMeter(tree(cores), false).sources[2]).toMatchObject({
    state: 'unavailable',
    reason: expect.stringContaining('labelled as a socket'),
  });
});
