// `kernwatt doctor` on machines that are not this one: every piece that can be missing, with stand-ins for files, the dynamic loader
// and the library of kernels; what it says, the line that fixes it, and the exit code.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type Doctor, deviceFix, examine, failures, type Part, render } from '../../src/cli/doctor.js';
import { probeDriver } from '../../src/cli/driver.js';
import { probeEnergySources } from '../../src/measure/sources.js';
import { fakeLibrary } from '../native/raw.js';

const main = resolve(import.meta.dirname, '../../dist/cli/main.js');
const scratch = mkdtempSync(join(tmpdir(), 'kernwatt-doctor-'));
afterAll(() => rmSync(scratch, { recursive: true }));

/** A file system of these files. */
function machine(files: Record<string, string>): string {
  const root = mkdtempSync(join(scratch, 'root-'));
  chmodSync(scratch, 0o755);
  chmodSync(root, 0o755);
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
  return root;
}

const loads = () => ({ ok: true, detail: 'libcuda.so.1 loads' });
const doesNot = () => ({ ok: false, detail: 'libcuda.so.1: cannot open shared object file' });
const kernelModule = (version: string) => ({
  'proc/driver/nvidia/version': `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  ${version}  Release Build  (root@host)\nGCC version:  gcc version 12\n`,
});

describe('the driver', () => {
  test('none at all', () => {
    expect(probeDriver(machine({}), doesNot)).toEqual({
      state: 'missing',
      version: null,
      detail: 'libcuda.so.1: cannot open shared object file',
      fix: expect.stringMatching(
        /^install NVIDIA driver 580 or newer .*nvidia-driver-580; in a container: .*--gpus all/,
      ),
    });
  });

  test('one that is new enough, by either file', () => {
    for (const files of [kernelModule('580.95.05'), { 'sys/module/nvidia/version': '580.95.05\n' }])
      expect(probeDriver(machine(files), loads)).toEqual({
        state: 'ok',
        version: '580.95.05',
        detail: 'version 580.95.05; libcuda.so.1 loads',
        fix: null,
      });
  });

  test('one below the floor, whether or not libcuda is visible', () => {
    const root = machine({
      'proc/driver/nvidia/version':
        'NVRM version: NVIDIA UNIX x86_64 Kernel Module  579.99.01  Thu Jan  1 00:00:00 UTC 2026\n',
    });
    for (const loader of [loads, doesNot])
      expect(probeDriver(root, loader)).toMatchObject({
        state: 'old',
        version: '579.99.01',
        detail: 'version is 579.99.01, expected 580 or newer',
        fix: expect.stringMatching(/^install NVIDIA driver 580/),
      });
  });

  test('a kernel module without libcuda, as in a container that was not told', () => {
    expect(probeDriver(machine(kernelModule('590.1')), doesNot)).toMatchObject({
      state: 'unavailable',
      version: '590.1',
      detail: expect.stringMatching(/^the kernel module has version 590\.1, but libcuda\.so\.1: cannot/),
      fix: expect.stringMatching(/^in a container: run it with --gpus all/),
    });
  });

  test('libcuda without a kernel module, but for WSL', () => {
    expect(probeDriver(machine({}), loads)).toMatchObject({ state: 'unavailable', fix: 'sudo modprobe nvidia' });
    const wsl = machine({ 'proc/version': 'Linux version 6.6.87-microsoft-standard-WSL2' });
    expect(probeDriver(wsl, loads)).toMatchObject({ state: 'ok', version: null, fix: null });
  });
});

test('devices: the driver first, then their age, then what hides them', () => {
  const good = probeDriver(machine(kernelModule('580.1')), loads);
  expect(deviceFix(0, 'no driver', probeDriver(machine({}), doesNot))).toMatch(/^install NVIDIA driver 580/);
  expect(deviceFix(1, 'cuda:0 (T4) has compute capability 7.5, expected 8.0 or newer', good)).toMatch(
    /8\.0 \(Ampere\)/,
  );
  expect(deviceFix(0, 'it offers no device', good)).toMatch(/^unset CUDA_VISIBLE_DEVICES; .*--gpus all/);
  expect(deviceFix(1, 'unknown error', good)).toMatch(/NVRM/);
});

describe('the library of kernels', () => {
  const doctor = (library: string, ...args: string[]) => {
    const env = { ...process.env, KERNWATT_CUDA_LIBRARY: library };
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'doctor', '--json', ...args], {
      encoding: 'utf8',
      env,
    });
    return { status, stderr, report: JSON.parse(stdout) as Doctor };
  };

  test.each([
    [
      'is not there',
      '/nowhere/libkernwatt_cuda.so',
      'missing',
      /not at \/nowhere\/libkernwatt_cuda\.so \(KERNWATT_CUDA_/,
    ],
    ['is no library', '/etc/passwd', 'unavailable', /\/etc\/passwd/],
    ['has another ABI', fakeLibrary('abi'), 'unavailable', /abi/i],
    ['has no device', fakeLibrary('empty'), 'unavailable', /fake: no driver/],
    ['has a device that is too old', fakeLibrary(), 'unavailable', /compute capability 0\.0, expected 8\.0 or newer/],
  ])('%s', (_, library, state, detail) => {
    const { status, stderr, report } = doctor(library);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(report.cuda).toMatchObject({ state, detail: expect.stringMatching(detail), fix: expect.any(String) });
    const required = doctor(library, '--require', 'cuda');
    expect(required.status).toBe(1);
    expect(required.stderr).toMatch(/^kernwatt doctor: cuda is (missing|unavailable): .*; fix: .*\n$/);
  });
});

test('counters of energy that only root may read: denied, with one line that opens them', async () => {
  const zone = 'sys/class/powercap/intel-rapl:0';
  const root = machine({ [`${zone}/name`]: 'package-0\n', [`${zone}/energy_uj`]: '5\n' });
  chmodSync(join(root, zone, 'energy_uj'), 0o000);
  // Root reads everything, so the probe runs as nobody where the tests run as root.
  const user = process.geteuid!();
  if (user === 0) process.seteuid!(65534);
  try {
    const [powercap] = await probeEnergySources(root);
    const fix = `sudo chmod a+r ${join(root, 'sys/class/powercap')}/intel-rapl:*/energy_uj`;
    expect(powercap).toMatchObject({ name: 'powercap', state: 'denied', fix });
  } finally {
    if (user === 0) process.seteuid!(0);
  }
});

describe('exit codes', async () => {
  const report = await examine();
  const working = (changes: Partial<Doctor>): Doctor => ({ ...report, ...changes });
  const nothing = { path: null, abi: null, build: null, ops: [], devices: [] };
  const broken = { ...nothing, state: 'missing' as const, detail: 'not there', fix: 'build it' };

  test('0 on a machine with a CPU and nothing else, 1 for what is required on top', () => {
    const bare = working({ cuda: broken, emu: broken, energy: [] });
    expect(failures(bare, ['cpu'])).toEqual([]);
    expect(failures(bare, ['cpu', 'cuda', 'cuda'])).toEqual(['cuda is missing: not there; fix: build it']);
    expect(failures(bare, ['emu'])).toEqual(['emu is missing: not there; fix: build it']);
  });

  test('energy: one source that can be read is enough; none names them all', () => {
    const source = { name: 'perf', state: 'denied', detail: 'paranoid', fix: 'sudo sysctl' } as const;
    const other = { name: 'nvml', state: 'ok', detail: 'loads', fix: null } as const;
    expect(failures(working({ energy: [source, other] }), ['energy'])).toEqual([]);
    expect(failures(working({ energy: [source] }), ['energy'])).toEqual(['perf is denied: paranoid; fix: sudo sysctl']);
  });

  test('1 where the addon does not load or Node is not supported, whatever else was required', () => {
    const addon = { state: 'missing', abi: null, napi: null, detail: 'gone', fix: 'npm run build' } as const;
    expect(failures(working({ addon }), ['cpu'])).toEqual(['addon is missing: gone; fix: npm run build']);
    const node = { version: 'v18.0.0', napi: '9', supported: false, wanted: '>=20' };
    expect(failures(working({ node }), ['emu'] satisfies Part[])[0]).toBe('node is v18.0.0, expected >=20');
  });

  test('2 for a part that does not exist', () => {
    const { status, stderr } = spawnSync(process.execPath, [main, 'doctor', '--require', 'gpu'], { encoding: 'utf8' });
    expect(status).toBe(2);
    expect(stderr).toMatch(/Allowed choices are cpu, cuda, emu, energy/);
  });

  test('what is printed carries every fix', () => {
    const driver = probeDriver(machine(kernelModule('570.1')), loads);
    const out = render(working({ driver, cuda: broken }));
    expect(out).toMatch(/^driver +old: version is 570\.1, expected 580 or newer\n +fix: install NVIDIA driver 580/m);
    expect(out).toMatch(/^cuda +missing: not there\n +fix: build it/m);
  });
});
