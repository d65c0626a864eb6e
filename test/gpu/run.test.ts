// tools/gpu-run.sh without a GPU: states of parts, limits, interruption, and one line for everything that can be wrong.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Fake } from '../nvml/fake.js';
import {
  emulator,
  gpuRun,
  hasEmulator,
  interrupt,
  part,
  readJson,
  readRun,
  removeTree,
  root,
  script,
  standIn,
  states,
  stub,
  toolbox,
} from './dry.js';

let folder: string;
let home: string;
let path: string;
let out: string;
let runs = 0;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kernwatt-emulated-'));
  home = standIn(join(folder, 'home'));
  path = toolbox(join(folder, 'bin'), ['nvidia-smi', 'compute-sanitizer']);
});
beforeEach(() => {
  out = join(folder, `out${++runs}`);
});
afterAll(() => removeTree(folder));

const lines = (file: string) => readFileSync(join(out, file), 'utf8').trim().split('\n');

describe('parts', () => {
  test('each has a state, and what lacks its tool is missing with the reason, never passed', () => {
    const { status, stdout } = gpuRun(home, out, [], { path, env: { KERNWATT_GPU_LIMITS: 'meter=3' } });
    expect(states(out)).toEqual({
      probe: 'passed',
      conformance: 'passed',
      check: 'passed',
      sanitize: 'passed',
      peers: 'missing',
      meter: 'missing',
    });
    expect(status).toBe(1);
    expect(part(out, 'peers').summary).toContain('bench/peers/gpu.py is not there');
    expect(part(out, 'meter').summary).toContain('NVML cannot be opened');
    expect(part(out, 'check')).toMatchObject({ exit: 0, limit: 120, summary: '3 passed, 0 failed, 0 declined' });
    expect(part(out, 'check').files).toEqual(['check.jsonl', 'check.log']);
    expect(lines('check.jsonl')).toHaveLength(3);
    expect(lines('conformance.txt')).toEqual(['recorded']);
    expect(readRun(out)).toMatchObject({
      schema: 'kernwatt.gpu/0',
      commit: '1'.repeat(40),
      dirty: false,
      kernels: null,
      device: { name: 'fake', emulated: true },
    });
    expect(stdout).toMatch(/^EMULATED, proves no GPU: fake/);
    expect(stdout.trim().split('\n').at(-1)).toBe(`4 of 6 parts passed; results in ${out}`);
    expect(readFileSync(join(out, 'summary.txt'), 'utf8')).toBe(stdout);
  });

  test('one alone, and then another, share a folder; a repeated one replaces its own files alone', () => {
    expect(gpuRun(home, out, ['check'], { path }).status).toBe(0);
    expect(gpuRun(home, out, ['conformance'], { path })).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/check +passed .*\(earlier\) 3 passed/),
    });
    expect(gpuRun(home, out, ['check'], { path, env: { STAND_IN_FAILS: '1' } }).status).toBe(1);
    expect(states(out)).toEqual({ conformance: 'passed', check: 'failed' });
    expect(part(out, 'check').summary).toBe('2 passed, 1 failed, 0 declined');
    expect(lines('check.jsonl')).toHaveLength(3);
  });

  test('what goes beyond its limit is cut off and keeps what it wrote; the next part runs', () => {
    const env = { KERNWATT_GPU_LIMITS: 'check=2', STAND_IN_SECONDS: '1.3' };
    expect(gpuRun(home, out, ['check', 'conformance'], { path, env }).status).toBe(1);
    expect(states(out)).toEqual({ conformance: 'passed', check: 'timeout' });
    expect(part(out, 'check')).toMatchObject({ exit: 124, limit: 2 });
    expect(lines('check.jsonl')).toHaveLength(1);
  });

  test('cases left out for want of time are no pass', () => {
    expect(gpuRun(home, out, ['check'], { path, env: { STAND_IN_LEAVES: '7' } }).status).toBe(1);
    expect(part(out, 'check')).toMatchObject({ state: 'timeout', exit: 124 });
    expect(part(out, 'check').summary).toContain('7 not run');
  });

  test('sanitize: clean, with errors, unsupported by the machine, out of time', () => {
    const result = (env: Record<string, string>) => {
      gpuRun(home, out, ['sanitize'], { path, env });
      return { ...readJson(join(out, 'sanitize.json')), part: part(out, 'sanitize').state };
    };
    const clean = { state: 'passed', errors: 0, cases: 3 };
    expect(result({})).toEqual({ memcheck: clean, racecheck: clean, synccheck: clean, part: 'passed' });
    const wrong = result({ STUB_SANITIZER: '2' });
    expect(wrong).toMatchObject({ memcheck: { state: 'failed', errors: 2, cases: 3 }, part: 'failed' });
    expect(wrong).toMatchObject({ racecheck: { state: 'failed', errors: 2 } });
    const unsupported = result({ STUB_SANITIZER: 'unsupported' });
    expect(unsupported).toMatchObject({ memcheck: { state: 'missing', errors: null }, part: 'missing' });
    expect(unsupported.memcheck.reason).toContain('Device not supported');
    const late = result({ STAND_IN_SECONDS: '0.7', KERNWATT_GPU_LIMITS: 'sanitize=6' });
    expect(late).toMatchObject({ memcheck: { state: 'timeout', errors: null, cases: 1 }, part: 'timeout' });
  });
});

describe('interrupted', () => {
  const env = { STAND_IN_SECONDS: '20' };
  const checking = () => existsSync(join(out, 'check.log'));

  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)(
    'by %s: finished parts stay, the one in progress says so, the table still comes',
    async (signal, code) => {
      const { status, stdout } = await interrupt(home, out, ['conformance', 'check', 'sanitize'], signal, checking, {
        path,
        env,
      });
      expect(status).toBe(code);
      expect(states(out)).toEqual({ conformance: 'passed', check: 'interrupted' });
      expect(stdout).toMatch(/^check +interrupted/m);
      expect(stdout).toMatch(/^sanitize +not run/m);
    },
  );

  test('by nothing it could handle: the record still says that the part was cut off', async () => {
    await interrupt(home, out, ['conformance', 'check'], 'SIGKILL', checking, {
      path,
      env: { STAND_IN_SECONDS: '0.2' },
    });
    expect(states(out)).toEqual({ conformance: 'passed', check: 'interrupted' });
    expect(gpuRun(home, out, ['check'], { path }).status).toBe(0);
    expect(states(out)).toEqual({ conformance: 'passed', check: 'passed' });
  });
});

describe('bad input is one line, and what is done is kept', () => {
  /** Status 2, one line on stderr that contains `reason`, and nothing run. */
  function refused(
    reason: string,
    { parts = ['check'], to = out, ...options }: Parameters<typeof gpuRun>[3] & { parts?: string[]; to?: string },
  ) {
    const before = existsSync(join(to, 'run.json')) && readFileSync(join(to, 'run.json'), 'utf8');
    const { status, stderr, stdout } = gpuRun(home, to, parts, { path, ...options });
    expect({ status, stdout, lines: stderr.trim().split('\n').length }).toEqual({ status: 2, stdout: '', lines: 1 });
    expect(stderr).toContain(`gpu-run: `);
    expect(stderr).toContain(reason);
    expect(existsSync(join(to, 'run.json')) && readFileSync(join(to, 'run.json'), 'utf8')).toBe(before);
  }
  const smi = (row: string) => ({ env: { STUB_SMI: row } });

  test('no GPU', () => {
    refused('no GPU: nvidia-smi is not on PATH', { path: toolbox(join(folder, 'nosmi'), []) });
    refused('no GPU: nvidia-smi says "No devices were found"', smi('none'));
  });

  test('a GPU of the wrong architecture, a driver too old', () => {
    refused(
      'wrong architecture: Tesla T4 has compute capability 7.5, expected 8.0',
      smi('Tesla T4, GPU-0, 7.5, 580.1'),
    );
    refused('driver too old: NVIDIA A100 has driver 535.104, expected 580', smi('NVIDIA A100, GPU-0, 8.0, 535.104'));
  });

  test('no Python, no disk, a folder that cannot be written', () => {
    refused('no Python', { path: toolbox(join(folder, 'nopython'), ['nvidia-smi'], ['python3']) });
    const full = toolbox(join(folder, 'full'), ['nvidia-smi'], ['df']);
    script(join(full, 'df'), 'echo Filesystem; echo /dev/vda 9 9 1024 99% /');
    refused('no disk:', { path: full });
    refused('cannot be written', { to: '/proc/nowhere' });
  });

  test('an unknown part, no folder, a limit that is none', () => {
    refused('part is speed, expected some of build probe', { parts: ['speed'] });
    refused('usage:', { to: '', parts: [] });
    refused('KERNWATT_GPU_LIMITS holds check=fast', { env: { KERNWATT_GPU_LIMITS: 'check=fast' } });
    refused('KERNWATT_GPU_LIBRARY is /nowhere.so', { env: { KERNWATT_GPU_LIBRARY: '/nowhere.so' } });
    refused('KERNWATT_GPU_BUNDLE is /nowhere.tar.xz', { env: { KERNWATT_GPU_BUNDLE: '/nowhere.tar.xz' } });
  });

  test('results of another commit or library, and files that are no results', () => {
    expect(gpuRun(home, out, ['check'], { path }).status).toBe(0);
    const run = readRun(out);
    const become = (changes: object) => writeFileSync(join(out, 'run.json'), JSON.stringify({ ...run, ...changes }));
    become({ commit: '2'.repeat(40) });
    refused('holds results of commit 2222', {});
    become({ library: '3'.repeat(64) });
    refused('holds results of library 3333', {});
    become({ schema: 'something/1' });
    refused('has schema something/1, expected kernwatt.gpu/0', {});
    writeFileSync(join(out, 'run.json'), '{');
    refused('is not a record of this program', {});
  });

  test('a bundle that is none', () => {
    const broken = join(folder, 'broken.tar.xz');
    writeFileSync(broken, 'no archive');
    refused('cannot be unpacked', { env: { KERNWATT_GPU_BUNDLE: broken } });
  });
});

test('on a device that is none of the emulator: its driver, its own programs, and Node where it was brought', () => {
  const real = mkdtempSync(join(tmpdir(), 'kernwatt-device-')); // the fake library is emulated where its path says so
  try {
    for (const name of ['tools', 'bench', '.build', 'test', 'bundle.json'])
      cpSync(join(home, name), join(real, name), { recursive: true });
    for (const name of ['dist/cli/main.js', 'build/Release/kernwatt.node']) script(join(real, name), '');
    script(join(real, '.build/cuda/bin/simt_test_gpu'), 'echo device >"$2"; echo "9 passed, 0 failed"');
    const calls = join(real, 'calls');
    script(
      join(real, 'bin/node'),
      `echo "$KERNWATT_CUDA_LIBRARY $*" >>${calls}; [ "$2" = check ] || echo {} >"\${!#}"`,
    );
    expect(gpuRun(real, out, ['conformance', 'node'], { path }).status).toBe(0);
    expect(readRun(out).device).toMatchObject({ name: 'fake', driver: '580.95.05', emulated: false });
    expect(readFileSync(join(out, 'summary.txt'), 'utf8')).not.toContain('EMULATED');
    expect(lines('conformance.txt')).toEqual(['device']);
    expect(part(out, 'node').summary).toMatch(/^check: exit code 0, bench: exit code 0, 1 records/);
    const library = join(real, '.build/cuda/lib/libkernwatt_cuda.so');
    const program = join(real, 'dist/cli/main.js');
    expect(readFileSync(calls, 'utf8').trim().split('\n')).toEqual([
      `${library} ${program} check --backend cuda`,
      `${library} ${program} bench --quick --backend cuda --out ${join(out, 'node.jsonl')}`,
    ]);
    script(join(real, 'bin/node'), '[ "$2" = check ] && exit 124; exit 0');
    expect(gpuRun(real, out, ['node'], { path }).status).toBe(1);
    expect(part(out, 'node').state).toBe('timeout');
  } finally {
    removeTree(real);
  }
});

test('kernels.json answers for its own library alone, and is kept beside the results', () => {
  const copy = join(folder, 'described');
  cpSync(home, copy, { recursive: true });
  expect(gpuRun(copy, out, ['conformance'], { path }).status).toBe(0);
  const { library } = readRun(out);
  const file = join(copy, '.build/cuda/kernels.json');
  writeFileSync(file, JSON.stringify({ commit: '4'.repeat(40), dirty: true, digest: 'd', library }));
  const fresh = join(folder, 'described-out');
  expect(gpuRun(copy, fresh, ['conformance'], { path }).status).toBe(0);
  expect(readRun(fresh)).toMatchObject({ commit: '4'.repeat(40), dirty: true, kernels: 'd' });
  expect(readJson(join(fresh, 'kernels.json')).digest).toBe('d');
  writeFileSync(file, JSON.stringify({ commit: '4'.repeat(40), dirty: true, digest: 'd', library: 'another' }));
  gpuRun(copy, out, ['conformance'], { path });
  expect(readRun(out)).toMatchObject({
    commit: '1'.repeat(40),
    kernels: null,
    kernelsReason: 'kernels.json belongs to another library',
  });
});

test('what is not built comes first, in time of its own; what is built stays', () => {
  const sources = join(folder, 'sources');
  cpSync(home, sources, { recursive: true });
  removeTree(join(sources, '.build'));
  writeFileSync(join(sources, 'CMakeLists.txt'), '');
  const tools = toolbox(join(folder, 'builders'), ['nvidia-smi']);
  for (const tool of ['nvcc', 'g++']) script(join(tools, tool), 'echo "Build cuda_13"');
  script(join(tools, 'cmake'), 'echo "CMake Error: no"; exit 1');
  expect(gpuRun(sources, out, ['check'], { path: tools }).status).toBe(1);
  expect(states(out)).toEqual({ build: 'failed', check: 'missing' });
  script(join(tools, 'cmake'), `echo "cmake $*"; [ "$1" = -S ] || cp -r ${home}/.build ${sources}/`);
  const built = gpuRun(sources, out, ['check'], { path: tools });
  expect(built.stderr).toContain('gpu-run: build, at most 300 s');
  expect(built.status).toBe(0);
  expect(states(out)).toEqual({ build: 'passed', check: 'passed' });
  expect(lines('build.log').join(' ')).toContain('--target kernwatt_cuda simt_test_gpu kernwatt_check');
  expect(readRun(out)).toMatchObject({ library: expect.stringMatching(/^[0-9a-f]{64}$/), device: { emulated: true } });
  expect(gpuRun(sources, out, ['check'], { path: tools }).stderr).not.toContain('build');
});

test('without sources or a library, nothing is built and nothing passes', () => {
  const empty = join(folder, 'empty');
  cpSync(home, empty, { recursive: true });
  removeTree(join(empty, '.build'));
  expect(gpuRun(empty, out, ['build', 'conformance', 'check'], { path }).status).toBe(1);
  expect(states(out)).toEqual({ build: 'missing', conformance: 'missing', check: 'missing' });
  expect(readRun(out).device.emulated).toBe(null);
});

describe.skipIf(!hasEmulator)('against the emulated library (npm run build:cuda)', () => {
  test('every part in the default order, with the programs that a GPU would run; the ledger takes none of it', async () => {
    using fake = await Fake.start();
    const env = {
      KERNWATT_GPU_LIBRARY: emulator,
      ...fake.env,
      KERNWATT_GPU_LIMITS: 'meter=12',
      PYTHONPATH: stub,
    };
    const { stdout } = gpuRun(root, out, [], { env });
    const passed = ['probe', 'conformance', 'check', 'sanitize', 'peers', 'meter', 'node'];
    expect(states(out), stdout).toEqual(Object.fromEntries(passed.map((name) => [name, 'passed'])));
    expect(stdout).toContain('EMULATED');
    const cases = lines('check.jsonl').length;
    expect(cases).toBeGreaterThan(500);
    expect(readJson(join(out, 'sanitize.json')).racecheck).toEqual({ state: 'passed', errors: 0, cases });
    expect(part(out, 'peers').summary).toMatch(/^0 measured, \d+ emulated, 0 failed/);
    const probed = readJson(join(out, 'probe.json')).items;
    expect(probed['nvidia-smi.name']).toEqual({ value: 'NVIDIA Stub', state: 'ok' });
    expect(probed['nvidia-smi.mig.mode.current']).toMatchObject({ value: null, state: 'unsupported', reason: '[N/A]' });
    expect(probed['nvidia-smi.clocks_event_reasons.active']).toMatchObject({ value: null, state: 'unsupported' });
    const ledger = spawnSync(process.execPath, [join(root, 'tools/ledger.mjs'), 'record', out], { encoding: 'utf8' });
    expect(ledger.status).toBe(1);
    expect(ledger.stderr).toContain('was run on the emulator: nothing is recorded');
  });

  test('meter finds the ticks, the watts and why something is not there', async () => {
    using fake = await Fake.start({
      tick_ms: 25,
      gain: 1.5,
      throttle: [['swPowerCap', 0, 1e12]],
      processes: [[4242, 1e9]],
      deny: ['nvmlGpmMetricsGet'],
      unsupported: ['field:269', 'field:270', 'field:271'],
      missing: ['nvmlDeviceGetMemoryBusWidth'],
    });
    const env = { KERNWATT_GPU_LIBRARY: emulator, ...fake.env, KERNWATT_GPU_LIMITS: 'meter=13' };
    expect(gpuRun(root, out, ['meter'], { env }).status).toBe(0);
    const { items, emulated } = readJson(join(out, 'meter.json'));
    expect(emulated).toBe(true);
    expect(items['ticks.energy.idle'].value.periodMs).toBeGreaterThan(20);
    expect(items['ticks.energy.idle'].value.periodMs).toBeLessThan(32);
    expect(items['ticks.energy.idle'].value.quantum).toBe(9375); // 250 W, 1.5 times, for 25 ms
    expect(items['power.gemm'].value).toMatchObject({ averageW: 250, instantW: 250, disputed: true });
    expect(items['power.gemm'].value.counterW).toBeGreaterThan(330);
    expect(items['power.gemm'].value.counterW).toBeLessThan(420);
    expect(items['scope.instantPower.memory']).toEqual({ value: 25000, state: 'ok', unit: 'mW' });
    expect(items['scope.energy.memory']).toMatchObject({ value: null, state: 'unsupported' });
    expect(items['gpm.after100ms']).toMatchObject({ value: null, state: 'denied' });
    expect(items['throttle.74.swPowerCap'].note).toBe('its growth fits ns');
    expect(items['throttle.269.swThermal']).toMatchObject({ value: null, state: 'unsupported' });
    expect(items.memoryBus).toMatchObject({ value: null, state: 'missing' });
    expect(items.processes.value.pids).toEqual([4242]);
    expect(items.powerSamples.value).toMatchObject({ samples: 120, spacingMs: 25 });
    expect(items.clockLock.state).toBe('not tried');
    for (const item of Object.values(items) as { value: unknown; reason?: string }[])
      expect(item.value === null).toBe(typeof item.reason === 'string');
  });
});
