// `kernwatt monitor` on fake GPUs and made-up CPU packages: what is shown, in place or line by line, and how it ends. Needs dist/.
import { afterEach, describe, expect, test } from 'vitest';
import type { Watched, WatchedDomain } from '../../src/meter/watch.js';
import { temporary } from '../meter/tree.js';
import { Fake, type Scenario } from '../nvml/fake.js';
import { drawing, kernwatt, main, run } from './run.js';

let fake: Fake | undefined;
afterEach(() => fake?.stop());

/** `empty`: a machine without CPU packages to read. */
async function monitor(scenario: Scenario, args: string[], sysfs = temporary()) {
  fake = await Fake.start(scenario);
  return kernwatt(['monitor', '--sysfs', sysfs, ...args], fake.env);
}

type Line = Watched & { schema: string; time: string };
const parsed = (out: string): Line[] =>
  out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
const domain = ({ domains }: Watched, name: string): WatchedDomain => domains.find((one) => one.domain === name)!;

describe('--json', () => {
  test('energy since the start and power since the reading before are what the GPUs drew', async () => {
    const { code, out, err } = await monitor(
      {
        gpus: 2,
        power: 300,
        each: [{}, { power: 640, memory_used: 5e9, utilisation: 37, temperature: 71 }],
        throttle: [['swPowerCap', 0, 1e12]],
      },
      ['--json', '--interval', '400', '--count', '3'],
    );
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const lines = parsed(out);
    expect(lines).toHaveLength(3);
    for (const [i, line] of lines.entries()) {
      expect(line.schema).toBe('kernwatt.monitor/0');
      expect(line.seconds).toBeGreaterThan(0.4 * (i + 1) - 0.01);
      expect(line.domains.map((one) => one.domain)).toEqual(['gpu:0', 'gpu:1']);
      for (const [name, watts] of [
        ['gpu:0', 300],
        ['gpu:1', 640],
      ] as const) {
        const { energy, power, powerBasis } = domain(line, name);
        expect(powerBasis).toBe('counter');
        // Ticks of 20 ms, each of which is seen within milliseconds, or tens of them where the machine is busy.
        expect(Math.abs(energy! - watts * line.seconds)).toBeLessThan(0.1 * watts);
        expect(Math.abs(power! - watts) * line.interval).toBeLessThan(0.15 * watts);
      }
    }
    const { energy: _, power: __, throttled, ...rest } = domain(lines[2]!, 'gpu:1');
    expect(rest).toMatchObject({ usedBytes: 5e9, totalBytes: 150754820096, utilisation: 0.37, temperature: 71 });
    expect(rest).toMatchObject({ clock: 1.98e9, memoryClock: 3.201e9, memoryTemperature: 48, missing: {} });
    expect(throttled).toMatchObject({ thermal: 0, hardwareThermal: 0 });
    expect(throttled!.powerCap).toBeGreaterThan(0.7);
  });

  test('what a driver refuses is null with its reason, and power then comes from the sensor', async () => {
    const { code, out } = await monitor(
      {
        deny: ['field:83', 'field:191', 'nvmlDeviceGetTotalEnergyConsumption'],
        missing: ['nvmlDeviceGetUtilizationRates'],
      },
      ['--json', '--interval', '300', '--count', '1'],
    );
    expect(code).toBe(0);
    const [line] = parsed(out);
    const { energy, power, powerBasis, utilisation, clock, missing } = domain(line!, 'gpu:0');
    expect({ energy, power, powerBasis, utilisation, clock }).toEqual({
      energy: null,
      power: 250,
      powerBasis: 'sensor',
      utilisation: null,
      clock: 1.98e9,
    });
    expect(missing.energy).toMatch(/permission/i);
    expect(missing.utilisation).toMatch(/^missing \(nvmlDeviceGetUtilizationRates/);
  });

  test('a GPU that is lost meanwhile costs its own numbers alone', async () => {
    fake = await Fake.start({ gpus: 2 });
    const args = ['monitor', '--json', '--interval', '300', '--count', '4', '--sysfs', temporary()];
    const { code, out } = await kernwatt(args, fake.env, () => fake!.set({ each: [{ lost_at: 0 }] }));
    expect(code).toBe(0);
    const last = parsed(out).at(-1)!;
    const lost = domain(last, 'gpu:0');
    expect([lost.power, lost.clock, lost.usedBytes, lost.utilisation]).toEqual([null, null, null, null]);
    expect(lost.missing.memory).toMatch(/lost/i);
    expect(domain(last, 'gpu:1')).toMatchObject({ clock: 1.98e9, missing: {} });
  });

  test('a CPU package: power, energy, clock and what is not there', async () => {
    const cpu = {
      'devices/system/cpu/cpu0/topology/physical_package_id': '0\n',
      'devices/system/cpu/cpu0/cpufreq/scaling_cur_freq': '3100000\n',
    };
    const none = { KERNWATT_NVML_LIBRARY: '/nowhere/libnvidia-ml.so' };
    const { code, out } = await drawing(
      (sysfs) => kernwatt(['monitor', '--json', '--interval', '700', '--count', '2', '--sysfs', sysfs], none),
      cpu,
    );
    expect(code).toBe(0);
    const line = parsed(out)[1]!;
    const { power, energy, clock, temperature, throttled } = domain(line, 'package-0');
    expect({ clock, temperature, throttled }).toEqual({ clock: 3.1e9, temperature: null, throttled: null });
    expect(power).toBeGreaterThan(12);
    expect(power).toBeLessThan(28);
    expect(energy! / line.seconds).toBeGreaterThan(12);
    expect(energy! / line.seconds).toBeLessThan(28);
    expect(line.unreadable).toMatchObject([{ domain: 'gpu', state: 'missing' }]);
    expect(line.memory!.usedBytes).toBeLessThan(line.memory!.totalBytes);
  });
});

test('piped: one line for each interval', async () => {
  const throttle = [['swPowerCap', 0, 1e12]] as const;
  const { code, out, err } = await monitor({ power: 300, throttle }, ['--interval', '400', '--count', '2']);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  const lines = out.trimEnd().split('\n');
  expect(lines).toHaveLength(2);
  for (const line of lines)
    expect(line).toMatch(/^\d{4}-.*Z {2}gpu:0 \d+ W [\d.]+ J 1\.98 GHz 1\.00 GiB busy 100 % 42 °C power cap [\d.]+ %$/);
});

describe('the end', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)('%s is a clean one', async (signal) => {
    fake = await Fake.start();
    const args = ['monitor', '--interval', '100', '--sysfs', temporary()];
    const { code, err } = await kernwatt(args, fake.env, (child) => child.kill(signal));
    expect({ code, err }).toEqual({ code: 0, err: '' });
  });

  test('Ctrl-C before the first reading too', async () => {
    fake = await Fake.start({ slow_ms: { nvmlInit_v2: 1500 } });
    const started = performance.now();
    const child = kernwatt(['monitor', '--sysfs', temporary()], fake.env, undefined, (one) =>
      setTimeout(() => one.kill('SIGINT'), 1000),
    );
    expect(await child).toEqual({ code: 0, out: '', err: '' });
    expect(performance.now() - started).toBeGreaterThan(1000);
  });

  test('so is a reader who has had enough', async () => {
    fake = await Fake.start();
    const args = ['monitor', '--interval', '100', '--sysfs', temporary()];
    const { code, err } = await kernwatt(args, fake.env, (child) => child.stdout!.destroy());
    expect({ code, err }).toEqual({ code: 0, err: '' });
  });

  test('nothing to read: why, the fix, exit code 2', async () => {
    const none = { KERNWATT_NVML_LIBRARY: '/nowhere/libnvidia-ml.so' };
    const { code, out, err } = await kernwatt(['monitor', '--sysfs', temporary()], none);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toMatch(/^kernwatt monitor: no GPU and no energy counter can be read\n/);
    expect(err).toMatch(/^cpu is unavailable: no folder .*\/class\/powercap/m);
    expect(err).toMatch(/^gpu is missing: .*libnvidia-ml\.so.*; fix: install the NVIDIA driver/m);
  });

  test.each([
    [['--interval', '10'], /--interval.*whole number from 100/],
    [['--count', '0'], /--count.*whole number/],
    [['--gpu', 'first'], /--gpu is first, expected an index, a UUID .* or a PCI address/],
    [['--gpu', '7'], /no GPU and no energy counter can be read\n[\s\S]*gpu/],
  ])('%j makes no sense: exit code 2', async (args, message) => {
    const { code, out, err } = await monitor({}, args);
    expect(err).toMatch(message);
    expect({ code, out }).toEqual({ code: 2, out: '' });
  });
});

describe('on a terminal', () => {
  /** Runs its arguments on a terminal of 24 lines, and presses Ctrl-C after the third frame. */
  const terminal = `
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
seen, pressed = b'', False
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    seen += part
    if not part:
        break
    if seen.count(b'\\x1b[H') > 2 and not pressed:
        pressed = os.write(terminal, b'\\x03')
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`;

  test('draws in place, and Ctrl-C leaves the last frame on a terminal as it was before', async () => {
    fake = await Fake.start({ power: 300 });
    const command = [process.execPath, main, 'monitor', '--interval', '200', '--sysfs', temporary()];
    const env = { ...process.env, ...fake.env, TERM: 'xterm' };
    const { code, out, err } = await run('python3', ['-c', terminal, ...command], { env });
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const [begin, end] = ['\x1b[?1049h\x1b[?25l\x1b[?7l', '\x1b[?7h\x1b[?25h\x1b[?1049l'];
    expect(out.startsWith(begin)).toBe(true);
    expect(out.split(begin)).toHaveLength(2);
    const [live, after, ...more] = out.split(end);
    expect(more).toEqual([]);
    const frames = live!.split('\x1b[H').slice(1);
    expect(frames.length).toBeGreaterThanOrEqual(3);
    // The one that Ctrl-C met may be cut where the terminal echoed it.
    const whole = frames.filter((frame) => !frame.includes('^C'));
    expect(whole.length).toBeGreaterThanOrEqual(2);
    for (const frame of whole) {
      expect(frame).toMatch(/^kernwatt monitor, every 200 ms, .* so far/);
      expect(frame).toMatch(/gpu:0 +\d+ W +[\d.]+ J +1\.98 GHz/);
      expect(frame).toContain('\x1b[J');
    }
    // The terminal may echo ^C.
    expect(after).toMatch(/^kernwatt monitor, every 200 ms/);
    expect(after!.trim().split('\n')).toHaveLength(7);
    expect(after).not.toContain('\x1b');
  });
});
