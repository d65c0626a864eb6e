// CPU packages as Linux shows them, on made-up trees of sysfs and proc.
import { expect, test } from 'vitest';
import { HostReader } from '../../src/meter/host.js';
import { tree, write } from './tree.js';

const cpu = (n: number, id: number) => ({
  [`devices/system/cpu/cpu${n}/topology/physical_package_id`]: `${id}\n`,
  [`devices/system/cpu/cpu${n}/cpufreq/scaling_cur_freq`]: `${3_000_000 + 100_000 * n}\n`,
  [`devices/system/cpu/cpu${n}/thermal_throttle/package_throttle_total_time_ms`]: `${1500 * (id + 1)}\n`,
});
/** Ticks of CPUs: [busy, idle]. */
const stat = (...ticks: [number, number][]) =>
  `cpu  1 2 3 4\n${ticks.map(([busy, idle], i) => `cpu${i} ${busy} 0 0 ${idle} 0 0 0 0 0 0`).join('\n')}\nintr 5\n`;

test('two packages: utilisation between readings, mean clock, temperature, throttling; memory of the machine', () => {
  const root = tree({
    ...cpu(0, 0),
    ...cpu(1, 1),
    ...cpu(2, 0),
    ...cpu(3, 1),
    'devices/system/cpu/cpufreq/boost': '1\n',
    'class/hwmon/hwmon0/name': 'nvme\n',
    'class/hwmon/hwmon0/temp1_label': 'Package id 0\n',
    'class/hwmon/hwmon0/temp1_input': '1000\n',
    'class/hwmon/hwmon1/name': 'coretemp\n',
    'class/hwmon/hwmon1/temp1_label': 'Package id 1\n',
    'class/hwmon/hwmon1/temp1_input': '71500\n',
    'class/hwmon/hwmon1/temp2_label': 'Core 0\n',
    'class/hwmon/hwmon1/temp2_input': '99000\n',
    stat: stat([0, 0], [0, 0], [0, 0], [0, 0]),
    meminfo: 'MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n',
  });
  const reader = new HostReader(root, root);
  write(root, 'stat', stat([100, 0], [0, 100], [50, 50], [1, 99]));
  expect(reader.read()).toEqual({
    packages: [
      { domain: 'package-0', utilisation: 0.75, clock: 3.1e9, temperature: null, throttled: 1.5 },
      { domain: 'package-1', utilisation: 0.005, clock: 3.2e9, temperature: 71.5, throttled: 3 },
    ],
    memory: { usedBytes: 600 * 1024, totalBytes: 1000 * 1024 },
  });
  // No time has passed: nothing is known of it.
  expect(reader.read().packages[0]!.utilisation).toBe(null);
});

test('k10temp, one for each package in their order', () => {
  const sensor = (n: number, degrees: number) => ({
    [`class/hwmon/hwmon${n}/name`]: 'k10temp\n',
    [`class/hwmon/hwmon${n}/temp1_label`]: 'Tctl\n',
    [`class/hwmon/hwmon${n}/temp1_input`]: `${1000 * degrees}\n`,
    [`class/hwmon/hwmon${n}/temp3_label`]: 'Tccd1\n',
    [`class/hwmon/hwmon${n}/temp3_input`]: '1\n',
  });
  const root = tree({ ...cpu(0, 0), ...cpu(1, 1), ...sensor(10, 52), ...sensor(9, 47) });
  expect(new HostReader(root, root).read().packages.map(({ temperature }) => temperature)).toEqual([47, 52]);
});

test('what is not there is null, also on this machine', () => {
  expect(new HostReader('/nowhere', '/nowhere').read()).toEqual({ packages: [], memory: null });
  const { packages, memory } = new HostReader().read();
  expect(packages.length).toBeGreaterThan(0);
  expect(memory!.usedBytes).toBeLessThan(memory!.totalBytes);
  for (const { clock, temperature } of packages) for (const value of [clock, temperature]) expect(value).not.toBe(0);
});
