// `kernwatt meter` as a user runs it: whose output goes where, exit codes, signals, and the numbers of a made-up machine. Needs dist/.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { MeterReport } from '../../src/cli/meter.js';
import { temporary, tree, write, zone } from '../meter/tree.js';
import { Fake } from '../nvml/fake.js';
import { counter, drawing, kernwatt } from './run.js';

const meter = (args: readonly string[], onOutput?: (pid: number) => void, env: Record<string, string> = {}) =>
  kernwatt(['meter', ...args], env, (child) => onOutput?.(child.pid!));

const node = (script: string) => [process.execPath, '-e', script];
test('standard output is the command’s own, its exit code is returned, and its options stay its own', async () => {
  const script = 'console.log(process.argv.slice(1).join(" ")); process.exit(7)';
  const { code, out, err } = await meter(['--', ...node(script), '--', '--json', '-x', '--', '--out']);
  expect(out).toBe('--json -x -- --out\n');
  expect(code).toBe(7);
  expect(err).toMatch(/^kernwatt meter: [\d.]+ m?s, exit code 7\n/);
  expect(err).toMatch(
    /^gpu energy is missing: the library of the NVIDIA driver does not load: .*; fix: install the NVIDIA driver/m,
  );
});

test('without `--` what follows the command is the command’s own too', async () => {
  const { code, out } = await meter(['--interval', '50', 'echo', '--json']);
  expect([code, out]).toEqual([0, '--json\n']);
});

test('a machine without counters says so, with the reason, and prints no joules', async () => {
  const { code, err } = await meter(['--sysfs', temporary(), '--', 'true']);
  expect(code).toBe(0);
  expect(err).toMatch(/^cpu energy is unavailable: no folder .*powercap; fix: /m);
  expect(err).not.toMatch(/\d m?J\b/);
});

test('joules of the package, with bounds that hold the truth', async () => {
  const folder = temporary();
  const file = join(folder, 'meter.json');
  const { code, err } = await drawing((sysfs) =>
    meter(['--interval', '20', '--sysfs', sysfs, '--out', file, '--', ...node('setTimeout(() => {}, 700)')]),
  );
  expect(code).toBe(0);
  expect(err).toMatch(/^package-0 .* J .* powercap .*CPU packages: the whole socket, not this process alone$/m);
  const report = JSON.parse(readFileSync(file, 'utf8')) as MeterReport;
  expect(report).toMatchObject({ schema: 'kernwatt.meter/1', exitCode: 0, signal: null });
  expect(report.wallSeconds).toBeGreaterThan(0.7);
  const [cpu, gpu] = report.energy;
  const truth = 20 * report.wallSeconds;
  // The made-up counter is itself late by as much as the writer's timer is, some milliseconds when the machine is busy.
  expect(cpu!.bounds![0]).toBeLessThan(truth + 2);
  expect(cpu!.bounds![1]).toBeGreaterThan(truth - 2);
  expect(cpu!.joules.value).toBeGreaterThanOrEqual(cpu!.bounds![0]);
  expect(cpu!.joules.value).toBeLessThanOrEqual(cpu!.bounds![1]);
  expect(cpu).toMatchObject({ domain: 'package-0', source: 'powercap', scope: 'package', exclusive: false, fix: null });
  expect(gpu).toMatchObject({ domain: 'gpu', joules: { value: null, state: 'missing' } });
  expect(report.sources.map(({ name }) => name)).toEqual(['powercap', 'perf', 'hwmon', 'nvml']);
});

test('joules of all GPUs, or of one, beside the packages', async () => {
  using fake = await Fake.start({ gpus: 2, each: [{ power: 100 }, { power: 300, processes: [[1, 1e9]] }] });
  const run = ['--json', '--sysfs', temporary(), '--', ...node('setTimeout(() => {}, 500)')];
  const { energy, wallSeconds, sources } = JSON.parse((await meter(run)).err) as MeterReport;
  expect(energy.map(({ domain, source, scope, fix }) => ({ domain, source, scope, fix }))).toEqual([
    { domain: 'cpu', source: null, scope: 'package', fix: expect.any(String) },
    { domain: 'gpu:0', source: 'nvml', scope: 'gpu', fix: null },
    { domain: 'gpu:1', source: 'nvml', scope: 'gpu', fix: null },
  ]);
  for (const [gpu, watts] of [
    [energy[1]!, 100],
    [energy[2]!, 300],
  ] as const) {
    expect(gpu.bounds![0]).toBeLessThanOrEqual(watts * wallSeconds + 0.01);
    expect(gpu.bounds![1]).toBeGreaterThanOrEqual(watts * wallSeconds - 0.01);
    expect(gpu.joules.value! / (watts * wallSeconds)).toBeCloseTo(1, 1);
    expect(gpu.powerJ.value! / (watts * wallSeconds)).toBeCloseTo(1, 1);
  }
  expect(energy.map(({ exclusive }) => exclusive)).toEqual([false, true, null]);
  expect(sources[3]).toEqual({ name: 'nvml', state: 'ok', reason: null, fix: null });
  const one = await meter(['--gpu', '1', '--sysfs', temporary(), '--', ...node('setTimeout(() => {}, 300)')]);
  expect(one.err).toMatch(/^gpu:1 .* J .* nvml +the board: GPU and its memory/m);
  expect(one.err).not.toMatch(/^gpu:0/m);
  fake.set({ unsupported: ['field:83', 'nvmlDeviceGetTotalEnergyConsumption'] });
  const { err } = await meter(['--gpu', '1', '--sysfs', temporary(), '--', ...node('setTimeout(() => {}, 300)')]);
  expect(err).toMatch(/^gpu:1 energy is unsupported: .*Not Supported \(3\); about [\d.]+ J by power readings/m);
});

test('without the addon the command runs and is timed all the same', async () => {
  const { code, err } = await meter(['--', 'true'], undefined, { KERNWATT_ADDON: join(temporary(), 'none.node') });
  expect(code).toBe(0);
  expect(err).toMatch(/^kernwatt meter: .*, exit code 0$/m);
  expect(err).toMatch(/^gpu energy is unavailable: .*the native addon/m);
});

test('a command shorter than two steps of the counter has no joules but the reason', async () => {
  const root = tree(zone('intel-rapl:0', 'package-0'));
  let microjoules = 1000;
  const timer = setInterval(() => {
    microjoules += 1e6;
    write(root, counter, `${microjoules}`);
  }, 70);
  const { err } = await meter(['--json', '--sysfs', root, '--', 'true']);
  clearInterval(timer);
  expect((JSON.parse(err) as MeterReport).energy[0]!.joules).toMatchObject({
    value: null,
    reason: expect.stringMatching(/shorter than two periods of the energy counter/),
  });
});

test('--json is one object on standard error', async () => {
  const { out, err } = await meter(['--json', '--', ...node('console.log("mine")')]);
  expect(out).toBe('mine\n');
  expect(JSON.parse(err)).toMatchObject({
    schema: 'kernwatt.meter/1',
    command: [process.execPath, '-e', 'console.log("mine")'],
  });
});

test.each([
  ['SIGTERM', 143],
  ['SIGINT', 130],
] as const)('%s goes to the command, and what is known is printed', async (signal, expected) => {
  const { code, err } = await meter(['--', ...node('console.log("up"); setTimeout(() => {}, 60000)')], (pid) =>
    process.kill(pid, signal),
  );
  expect(code).toBe(expected);
  expect(err).toContain(`ended by ${signal}\n`);
});

test('a command that handles the signal decides on the exit code', async () => {
  const script = 'process.on("SIGTERM", () => process.exit(5)); console.log("up"); setTimeout(() => {}, 60000)';
  const { code } = await meter(['--', ...node(script)], (pid) => process.kill(pid, 'SIGTERM'));
  expect(code).toBe(5);
});

test('what cannot be run: 127, 126, and one line', async () => {
  expect(await meter(['--', 'kernwatt-no-such-command'])).toEqual({
    code: 127,
    out: '',
    err: 'kernwatt meter: kernwatt-no-such-command: command not found\n',
  });
  expect(await meter(['--', temporary()])).toMatchObject({ code: 126, err: expect.stringMatching(/\(EACCES\)\n$/) });
});

test.each([
  [[], /missing required argument 'command'/],
  [['--'], /missing required argument 'command'/],
  [[''], /the command is ""/],
  [['--interval', '0', '--', 'true'], /whole number from 1 to 10000/],
  [['--gpu', 'mine', '--', 'echo', 'ran'], /--gpu is mine, expected an index/],
  [['--out', '/no/such/folder/file', '--', 'echo', 'ran'], /--out is \/no\/such\/folder\/file.*\(ENOENT\)/],
])('%j makes no sense: exit code 2, and nothing runs', async (args, message) => {
  const { code, out, err } = await meter(args);
  expect([code, out]).toEqual([2, '']);
  expect(err).toMatch(message);
});
