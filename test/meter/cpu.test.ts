// CPU energy on made-up machines with known truth: every state a counter can be in. Time is given, not waited for.
import { chmodSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { probeEnergySources } from '../../src/measure/sources.js';
import type { CounterFound, Refusal } from '../../src/meter/counter.js';
import { findCpu } from '../../src/meter/cpu.js';
import { type DomainEnergy, type Meter, openMeter } from '../../src/meter/meter.js';
import { power, temporary, tree, unprivileged, write, zone } from './tree.js';

const energyUj = 'class/powercap/intel-rapl:0/energy_uj';

const open = (sysfs: string) => openMeter({ sysfs, manual: true, intervalSeconds: 0.01 });

/** Polls every 10 ms from 0 to `seconds`, `before` each writing what the counter says then; meters all but 0.2 s at each end. */
async function polled(meter: Meter, before: (time: number) => void, seconds = 1): Promise<DomainEnergy[]> {
  let reading: ReturnType<Meter['end']> | undefined;
  const steps = Math.round(seconds * 100);
  let mark = meter.begin();
  for (let i = 0; i <= steps; i++) {
    before(i / 100);
    meter.pollOnce(i / 100);
    if (i === 20) mark = meter.begin();
    if (i === steps - 20) reading = meter.end(mark);
  }
  return (await reading!).domains;
}

/** The counter in `path` is what `microjoules(time)` says. */
async function metered(root: string, microjoules: (time: number) => number | string, path = energyUj) {
  write(root, path, `${microjoules(0)}\n`);
  return polled(await open(root), (time) => {
    const shown = microjoules(time);
    write(root, path, `${typeof shown === 'number' ? Math.round(shown) : shown}\n`);
  });
}

const countersOf = (root: string): CounterFound[] => {
  const { found } = findCpu(root, false);
  if ('refusal' in found) throw new Error(found.refusal.reason);
  return found.counters;
};
/** Why the first domain cannot be read. */
const refusal = (root: string, virtual = false): Refusal => {
  const { found } = findCpu(root, virtual);
  return 'refusal' in found ? found.refusal : found.counters[0]!.refusal!;
};
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
  const counters = countersOf(root);
  const at = (id: string) => `/class/powercap/${id}/energy_uj`;
  expect(counters.map(({ domain, spec }) => [domain, spec.name.slice(root.length), spec.range])).toEqual([
    ['package-0', at('intel-rapl:0'), 262143328850],
    ['package-0/dram', at('intel-rapl:0:2'), 262143328850],
    ['package-1-die-0', at('intel-rapl:1'), 262143328850],
  ]);
  expect(counters[0]!.covers).toBe('CPU packages: the whole socket, not this process alone');
  expect(findCpu(root, false).states.map(({ name, state }) => [name, state])).toEqual([
    ['powercap', 'ok'],
    ['perf', 'unavailable'],
    ['hwmon', 'unavailable'],
  ]);
});

test('a package that only MMIO shows is metered', () => {
  const counters = countersOf(tree(zone('intel-rapl-mmio:0', 'package-0')));
  expect(counters.map(({ spec }) => spec.name)).toEqual([expect.stringContaining('intel-rapl-mmio:0')]);
});

test('energy between two moments lies within its bounds and says where it comes from', async () => {
  const [cpu, ...others] = await metered(tree(zone('intel-rapl:0', 'package-0')), steady);
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  expect(cpu!.bounds![0]).toBeLessThanOrEqual(30);
  expect(cpu!.bounds![0]).toBeGreaterThan(28);
  expect(cpu!.bounds![1]).toBeGreaterThanOrEqual(30);
  expect(cpu!.bounds![1]).toBeLessThan(32);
  expect(cpu!.joules).toMatchObject({
    unit: 'J',
    state: 'ok',
    basis: 'powercap: energy counter, interpolated between ticks',
  });
  expect(cpu!.powerJ).toMatchObject({ value: null, reason: 'power was not read' });
  expect(cpu!.domain).toMatchObject({ name: 'package-0', scope: 'package', exclusive: false, state: 'ok' });
  expect(others).toEqual([]);
});

test('a counter that wraps goes on', async () => {
  const range = 262143328850;
  const [cpu] = await metered(tree(zone('intel-rapl:0', 'package-0')), (time) => (range - 20e6 + 50e6 * time) % range);
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  expect(cpu!.bounds![1] - cpu!.bounds![0]).toBeLessThan(3);
});

test.each([
  ['far from its end', 1e9, 262143328850],
  ['and whose end is not known', 262143e6, 0],
])('a counter that goes back %s was reset', async (_, start, range) => {
  const root = tree(zone('intel-rapl:0', 'package-0', 0, range));
  const [cpu] = await metered(root, (time) => (time < 0.5 ? start + 50e6 * time : 50e6 * time));
  expect(cpu).toMatchObject({ joules: { value: null, state: 'unavailable' }, bounds: null });
  expect(cpu!.joules).toMatchObject({
    reason: expect.stringMatching(/went back from .* J to .* J and did not wrap: it was reset$/),
  });
});

test('a pause long enough for a wrap to go unseen leaves nothing known about it, and about nothing else', async () => {
  const root = tree(zone('intel-rapl:0', 'package-0', 1e6, 65532610987));
  const meter = await open(root);
  const readings: ReturnType<Meter['end']>[] = [];
  let microjoules = 1e6;
  const step = (time: number) => {
    microjoules += 0.5e6;
    write(root, energyUj, `${microjoules}\n`);
    meter.pollOnce(time);
  };
  for (let i = 0; i <= 45; i++) step(i / 100);
  readings.push(meter.end({ seconds: 0.1 }));
  for (let i = 46; i <= 50; i++) step(i / 100);
  for (let i = 0; i <= 10; i++) step(40.5 + i / 100);
  readings.push(meter.end({ seconds: 0.1 }));
  for (let i = 11; i <= 100; i++) step(40.5 + i / 100);
  readings.push(meter.end({ seconds: 40.7 }));
  for (let i = 101; i <= 120; i++) step(40.5 + i / 100);
  const [first, broken, last] = await Promise.all(readings);
  expect(broken!.domains[0]!.joules).toMatchObject({
    value: null,
    reason: expect.stringMatching(/no reading for 40.0 s.*wrapped unseen/),
  });
  expect(first!.domains[0]!.joules.value).toBeCloseTo(50 * 0.35, 0);
  expect(last!.domains[0]!.joules.value).toBeCloseTo(50 * 0.8, 0);
});

test.each([0, 123456789])('a counter that stays at %d is zero-stuck, never 0 J', async (microjoules) => {
  const [cpu] = await metered(tree(zone('intel-rapl:0', 'package-0')), () => microjoules);
  expect(cpu).toMatchObject({ joules: { value: null, state: 'zero-stuck' }, bounds: null });
  expect(cpu!.joules).toMatchObject({ reason: expect.stringMatching(/stays at .* J over 1\.00 s/) });
  expect(cpu!.domain.state).toBe('zero-stuck');
  expect(cpu!.domain.fix).toMatch(/virtual machine/);
});

test('a counter that may not be read is denied, with the line that doctor prints', async () => {
  const root = temporary();
  const sys = join(root, 'sys');
  for (const [path, text] of Object.entries(zone('intel-rapl:0', 'package-0'))) write(sys, path, text);
  chmodSync(root, 0o755);
  chmodSync(join(sys, energyUj), process.geteuid!() === 0 ? 0o400 : 0);
  const cpu = unprivileged(() => refusal(sys));
  expect(cpu).toMatchObject({ state: 'denied', reason: expect.stringContaining('EACCES') });
  const { domains } = await open(sys);
  expect(domains).toEqual([expect.objectContaining({ name: 'package-0', source: 'powercap' })]);
  const [doctor] = await unprivileged(() => probeEnergySources(root));
  expect(doctor).toMatchObject({ state: 'denied' });
  expect(cpu.fix).toBe(doctor!.fix);
  expect(cpu.fix).toMatch(/^sudo chmod a\+r .*energy_uj$/);
});

test('memory that may not be read does not take the package with it', async () => {
  const root = tree({ ...zone('intel-rapl:0', 'package-0'), ...zone('intel-rapl:0:0', 'dram', 'none') });
  const [cpu, dram] = await metered(root, steady);
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  expect(dram).toMatchObject({ domain: { name: 'package-0/dram' }, joules: { value: null, state: 'unavailable' } });
  expect(dram!.joules).toMatchObject({ reason: expect.stringContaining('holds "none", expected a whole number') });
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
    expect(cpu).toMatchObject({ state: 'unavailable', reason: expect.stringContaining('a container hides') });
    expect(cpu.fix).toMatch(/--sysfs \/host\/sys/);
  }
});

test('no counter at all is unavailable, with what can be done', async () => {
  const cpu = refusal(temporary());
  expect(cpu).toMatchObject({ state: 'unavailable', reason: expect.stringMatching(/no folder .*powercap/) });
  const meter = await open(temporary());
  const { domains } = await meter.end(meter.begin());
  expect(domains).toEqual([
    {
      domain: expect.objectContaining({ name: 'cpu', source: null, state: 'unavailable' }),
      joules: expect.objectContaining({ value: null, state: 'unavailable' }),
      bounds: null,
      powerJ: expect.objectContaining({ value: null }),
    },
  ]);
  expect(cpu.fix).toMatch(/modprobe/);
  expect(refusal(temporary(), true).fix).toMatch(/virtual machine/);
  expect(refusal(tree(zone('intel-rapl:0', 'psys'))).reason).toMatch(/psys$/);
});

test('a counter that fails half-way costs its number and nothing else', async () => {
  const root = tree({ ...zone('intel-rapl:0', 'package-0'), ...zone('intel-rapl:1', 'package-1') });
  const second = 'class/powercap/intel-rapl:1/energy_uj';
  const meter = await open(root);
  const [one, two] = await polled(meter, (time) => {
    write(root, energyUj, `${steady(time)}`);
    write(root, second, time < 0.5 ? `${steady(time)}` : 'gone');
  });
  expect(one!.joules.value).toBeCloseTo(30, 0);
  expect(two!.joules).toMatchObject({ value: null, reason: expect.stringMatching(/51 readings failed: .*"gone"/) });
  expect(meter.domains.map(({ state }) => state)).toEqual(['ok', 'unavailable']);
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

test('sockets of amd_energy stand in where powercap cannot be read', async () => {
  const [cpu] = await metered(tree(amd), steady, socket);
  expect(cpu!.domain).toMatchObject({ name: 'package-0', source: 'hwmon' });
  expect(cpu!.joules.value).toBeCloseTo(30, 0);
  const both = tree({ ...amd, ...zone('intel-rapl:0', 'package-0') });
  expect(countersOf(both).map(({ source }) => source)).toEqual(['powercap']);
  rmSync(join(both, energyUj));
  expect(countersOf(both).map(({ source }) => source)).toEqual(['hwmon']);
});

test('amd_energy without a socket is unavailable', () => {
  const { [socket]: _, ...cores } = amd;
  expect(findCpu(tree(cores), false).states[2]).toMatchObject({
    state: 'unavailable',
    reason: expect.stringContaining('labelled as a socket'),
  });
});

describe('the power events of perf', () => {
  const topology = (cpu: number, socket: number, die = 0) => ({
    [`devices/system/cpu/cpu${cpu}/topology/physical_package_id`]: `${socket}\n`,
    [`devices/system/cpu/cpu${cpu}/topology/die_id`]: `${die}\n`,
  });
  const names = (files: Record<string, string>) => {
    const { found } = findCpu(tree(files), false);
    return 'refusal' in found ? found.refusal.reason : found.counters.map(({ domain, spec }) => [domain, spec]);
  };

  test('stand in where powercap cannot be read: packages and their memory, by the CPUs that count for them', () => {
    const events = ['energy-pkg', 'energy-ram', 'energy-cores', 'energy-psys'];
    const spec = (cpu: number, event: string) =>
      ({
        kind: 'perf',
        name: `perf power/${event}/`,
        joulesPerCount: 1e-9,
        range: 0,
        type: 1,
        config: 0,
        cpu,
      }) as const;
    expect(names({ ...power('0,18', events), ...topology(0, 0), ...topology(18, 1) })).toEqual([
      ['package-0', spec(0, 'energy-pkg')],
      ['package-0/dram', spec(0, 'energy-ram')],
      ['package-1', spec(18, 'energy-pkg')],
      ['package-1/dram', spec(18, 'energy-ram')],
    ]);
    expect(names({ ...power('0-1'), ...topology(0, 0), ...topology(1, 0, 1) })).toEqual([
      ['package-0-die-0', spec(0, 'energy-pkg')],
      ['package-0-die-1', spec(1, 'energy-pkg')],
    ]);
    expect(names({ ...power('0'), ...zone('intel-rapl:0', 'package-3') })).toEqual([
      ['package-3', expect.objectContaining({ kind: 'file' })],
    ]);
  });

  test.each([
    [power(''), /no folder .*powercap/, /cpumask names no CPU/],
    [power('0', []), /no folder .*powercap/, /no event energy-pkg/],
    [power('0', ['energy-psys']), /no folder .*powercap/, /no event energy-pkg/],
  ])('%# tell why there are none', (files, reason, own) => {
    const { found, states } = findCpu(tree(files), false);
    expect(found).toMatchObject({ refusal: { reason: expect.stringMatching(reason) } });
    expect(states[1]).toMatchObject({ name: 'perf', state: 'unavailable', reason: expect.stringMatching(own) });
  });

  test('are opened for real: 1 J a second, or the permission that lacks', async () => {
    const sysfs = tree(power('0'));
    chmodSync(sysfs, 0o755);
    await using meter = await openMeter({ sysfs });
    const mark = meter.begin();
    await setTimeout(400);
    const { seconds, domains } = await meter.end(mark);
    const [cpu] = domains;
    if (process.geteuid!() !== 0) {
      expect(cpu!.domain).toMatchObject({ state: 'denied', fix: 'sudo sysctl kernel.perf_event_paranoid=0' });
      return;
    }
    expect(cpu!.domain).toMatchObject({ name: 'package-0', source: 'perf', state: 'ok' });
    expect(cpu!.bounds![0]).toBeLessThan(seconds);
    expect(cpu!.bounds![1]).toBeGreaterThan(seconds);
    expect(cpu!.joules.value! / seconds).toBeCloseTo(1, 1);
    expect(unprivileged(() => findCpu(sysfs, false).found)).toMatchObject({
      counters: [{ refusal: { state: 'denied', fix: 'sudo sysctl kernel.perf_event_paranoid=0' } }],
    });
  });
});
