// The command as a user runs it: exit codes, what is printed where, JSON, bad input. Needs dist/ (npm test builds it).
import { spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { complaints } from '../measure/record.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'kernwatt-'));
afterAll(() => rmSync(folder, { recursive: true }));
beforeAll(() => {
  if (!existsSync(join(root, 'dist/cli/main.js'))) throw new Error('dist/ is missing: npm run build');
});

interface Result {
  code: number | null;
  out: string;
  err: string;
}

function run(file: string, args: readonly string[] = [], onOutput?: (kill: () => void) => void): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [file, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    const result: Result = { code: null, out: '', err: '' };
    child.stdout.on('data', (chunk) => {
      result.out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      result.err += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ ...result, code }));
    onOutput?.(() => child.kill('SIGINT'));
  });
}

const kernwatt = (...args: string[]) => run(join(root, 'dist/cli/main.js'), args);
/** One small shape, as quick as it goes. */
const small = ['--backend', 'cpu', '--quick', '--cache', 'hot', '--shape', 'm=3,n=16,k=32'];

describe('doctor', () => {
  test('says what works and what does not, and how to fix it', async () => {
    const { code, out, err } = await kernwatt('doctor');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    for (const word of ['kernwatt', 'node', 'addon', 'cpu', 'clock', 'driver', 'cuda', 'emu', 'powercap', 'nvml'])
      expect(out).toMatch(new RegExp(`^${word} `, 'm'));
    expect(out).toMatch(/^addon +ok: ABI \d+/m);
  });

  test('--json', async () => {
    const { code, out } = await kernwatt('doctor', '--json');
    expect(code).toBe(0);
    const report = JSON.parse(out);
    expect(report).toMatchObject({
      schema: 'kernwatt.doctor/0',
      node: { version: process.version, supported: true },
      addon: { state: 'ok', fix: null },
      cpu: { cores: expect.any(Number), isa: expect.arrayContaining(['generic']) },
      cuda: { state: expect.stringMatching(/^(ok|missing|unavailable)$/) },
    });
    expect(report.clock.resolutionSeconds).toBeGreaterThan(0);
    const states = ['ok', 'unsupported', 'denied', 'missing', 'zero-stuck', 'unavailable'];
    expect(report.energy.map(({ name }: { name: string }) => name)).toEqual(['powercap', 'perf', 'hwmon', 'nvml']);
    for (const { state, detail } of report.energy) {
      expect(states).toContain(state);
      expect(detail).not.toBe('');
    }
  });
});

test('doctor and ops work without the addon, and say that it is missing', async () => {
  const bare = join(folder, 'bare');
  mkdirSync(bare);
  cpSync(join(root, 'dist'), join(bare, 'dist'), { recursive: true });
  cpSync(join(root, 'package.json'), join(bare, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(bare, 'node_modules'));
  const main = join(bare, 'dist/cli/main.js');
  const doctor = await run(main, ['doctor', '--json']);
  expect(doctor.code).toBe(1);
  expect(doctor.err).toMatch(/^kernwatt doctor: addon is missing: /);
  expect(JSON.parse(doctor.out)).toMatchObject({
    addon: { state: 'missing', fix: expect.stringMatching(/^npm install --no-save node-gyp .*from-source\.mjs$/) },
    cpu: null,
    cuda: { state: 'unavailable' },
  });
  expect((await run(main, ['doctor'])).out).toMatch(/^addon +missing: /m);
  const ops = await run(main, ['ops', '--json']);
  expect(ops.code).toBe(0);
  expect(JSON.parse(ops.out)).toMatchObject({
    reason: expect.stringContaining('addon'),
    ops: expect.arrayContaining([expect.objectContaining({ name: 'gemm', backends: null })]),
  });
  const bench = await run(main, ['bench']);
  expect(bench.code).toBe(1);
  expect(bench.err).toMatch(/^kernwatt: kernwatt: the native addon|^kernwatt: .*addon/);
});

describe('ops', () => {
  test('lists arguments, types and backends', async () => {
    const { code, out } = await kernwatt('ops');
    expect(code).toBe(0);
    expect(out).toMatch(/^gemm: /m);
    expect(out).toMatch(/^ {2}w +input \[batch\?, rowsW, k\], as x$/m);
    expect(out).toMatch(/backends: ref, cpu/);
  });
});

describe('check', () => {
  test('one case: the last line counts', async () => {
    const { code, out } = await kernwatt('check', 'gemm', '--case', 'f32, 17 x 17 x 17');
    expect({ code, out }).toEqual({ code: 0, out: '1 passed, 0 failed\n' });
  });

  test('random cases of a seed, as JSON', async () => {
    const { code, out } = await kernwatt('check', 'gemm', '--fuzz', '3', '--seed', '11', '--json');
    expect(code).toBe(0);
    const report = JSON.parse(out);
    expect(report).toMatchObject({ schema: 'kernwatt.check/0', device: 'cpu', passed: 3, failed: 0, skipped: 0 });
    expect(report.outcomes.map(({ seed }: { seed: number }) => seed)).toEqual([11, 12, 13]);
    expect(report.outcomes[0].repro).toBe('kernwatt check gemm --backend cpu --seed 11 --fuzz 1');
  });

  test('the reference against itself', async () => {
    expect((await kernwatt('check', 'gemm', '--backend', 'ref', '--case', 'bf16, relu')).out).toBe(
      '1 passed, 0 failed\n',
    );
  });
});

describe('bench', () => {
  test('prints an honest table', async () => {
    const { code, out, err } = await kernwatt('bench', 'gemm', ...small, '--dtype', 'f32', '--threads', '1');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(/^m=3 n=16 k=32 +m=3 k=32 rowsW=16 +f32 +cpu\S* +hot +[\d.]+ [mµn]s/m);
    expect(out).toMatch(/^peak fma_f32 on cpu: [\d.]+ GFLOP\/s, empirical: .* 1 threads/m);
    expect(out).toMatch(/^n\/a AEC: cpu energy cannot be read: .*; kernwatt doctor lists every meter$/m);
    expect(out).not.toMatch(/NaN|undefined|Infinity/);
  });

  test('--json and --out hold the same records, each valid; a second run appends', async () => {
    const file = join(folder, 'records.jsonl');
    const first = await kernwatt('bench', ...small, '--json', '--out', file);
    expect(first.code).toBe(0);
    const report = JSON.parse(first.out);
    expect(report).toMatchObject({ schema: 'kernwatt.bench/0', notes: [] });
    const lines = () =>
      readFileSync(file, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
    expect(lines()).toEqual(report.records);
    await kernwatt('bench', ...small, '--out', file);
    expect(lines()).toHaveLength(2);
    for (const record of lines()) expect(complaints(record)).toEqual([]);
    expect(lines()[0]).toMatchObject({ verdict: 'ok', case: { shape: { m: 3, n: 16, k: 32 } } });
  });

  test('says why there are no CUDA rows', async () => {
    const { code, out } = await kernwatt('bench', ...small, '--backend', 'auto', '--json');
    expect(code).toBe(0);
    const { notes, records } = JSON.parse(out);
    const devices = new Set(records.map(({ kernel }: { kernel: { device: string } }) => kernel.device));
    if (devices.has('cuda:0')) expect(notes).toEqual([]);
    else expect(notes).toEqual([expect.stringMatching(/^no CUDA rows: openDevice: .*doctor/)]);
  });

  test('never destroys a file that holds something else', async () => {
    const file = join(folder, 'notes.txt');
    writeFileSync(file, 'precious\n');
    const { code, err } = await kernwatt('bench', ...small, '--out', file);
    expect(code).toBe(2);
    expect(err).toMatch(/whose line 1 is not a record; expected a file of records, or --force to replace it\n$/);
    expect(readFileSync(file, 'utf8')).toBe('precious\n');
  });

  test("runs a user's script and keeps the records of its measure()", async () => {
    writeFileSync(
      join(folder, 'mine.mjs'),
      `export default async ({ device, measure, compare }) => {
        await measure(() => device.memory(), { name: 'counters', quick: true, maxSeconds: 0.1 });
        await compare({ a: () => 1, b: () => 2 }, { quick: true, maxSeconds: 0.1 });
        return [{ row: 'answer', value: 42 }];
      };`,
    );
    const { code, out } = await kernwatt('bench', 'mine.mjs', '--backend', 'cpu', '--json');
    expect(code).toBe(0);
    const { records, result } = JSON.parse(out);
    expect(records.map((record: { case: { name: string } }) => record.case.name)).toEqual(['counters', 'a', 'b']);
    expect(records[2].comparison.baseline).toBe('a');
    for (const record of records) expect(complaints(record)).toEqual([]);
    expect(result).toEqual([{ row: 'answer', value: 42 }]);
    expect((await kernwatt('bench', 'mine.mjs', '--backend', 'cpu')).out).toMatch(/^answer +42$/m);
  });

  test('--self: nanoseconds of every call, and what a meter costs, or why nobody can tell', async () => {
    const { code, out } = await kernwatt('bench', '--self', '--quick', '--backend', 'cpu', '--json');
    expect(code).toBe(0);
    const { calls, meter } = JSON.parse(out).result;
    expect(calls.map(({ call }: { call: string }) => call)).toContain('plan.enqueue()');
    for (const { ns } of calls) expect(ns).toBeGreaterThan(0);
    expect(meter.kernels.length > 0).toBe(meter.domains.length > 0);
    if (meter.domains.length === 0) expect(meter.reason).toMatch(/^cpu: .*; gpu: /);
  });

  test('--no-energy leaves the windows out, and the records say so', async () => {
    const { code, out } = await kernwatt('bench', 'gemm', ...small, '--dtype', 'f32', '--no-energy', '--json');
    expect(code).toBe(0);
    for (const { energy } of JSON.parse(out).records)
      expect(energy.perCallJ).toMatchObject({ value: null, reason: 'metering was switched off for this run' });
  });

  test('Ctrl-C stops it with what there is', async () => {
    const file = join(folder, 'interrupted.jsonl');
    const args = ['bench', '--backend', 'cpu', '--cache', 'hot', '--out', file];
    const { code, out } = await run(join(root, 'dist/cli/main.js'), args, (kill) => {
      const timer = setInterval(() => {
        if (!existsSync(file)) return;
        clearInterval(timer);
        kill();
      }, 50);
    });
    expect(code).toBe(130);
    expect(out).toMatch(/^interrupted: /m);
    expect(out).toMatch(/^case +shape/m);
    // Every finished record is in the file, whole.
    const kept = readFileSync(file, 'utf8').trimEnd().split('\n');
    for (const line of kept) expect(complaints(JSON.parse(line))).toEqual([]);
  });
});

describe('bad input: one sentence on standard error, exit code 2', () => {
  test.each([
    [['bench', 'gem'], /bench: operator or suite is "gem"; did you mean "gemm"\?/],
    [
      ['bench', 'softmax'],
      /is "softmax"; expected quick, models, attention_gqa, attention_gqa_backward, attention_gqa_paged, attention_merge/,
    ],
    [['bench', '--shape', 'q=1,m=2'], /bench: no operator has the dimensions q, m; name one/],
    [['bench', 'gemm', '--shape', 'q=1'], /gemm: dimension is "q"; expected batch, m, k, rowsW, n/],
    [['bench', '--shape', 'm=one'], /--shape.*expected sizes such as m=1,k=4096/],
    [['bench', '--shape', 'm=1,n=0.5'], /--shape/],
    [['bench', '--dtype', 'bf17'], /--dtype is "bf17"; did you mean "bf16"\?/],
    [['bench', 'gemm', '--dtype', 'i8'], /gemm: --dtype is i8, expected f32, bf16, f16/],
    [['bench', '--threads', '0'], /--threads.*whole number from 1 to 1024/],
    [['bench', '--backend', 'tpu'], /--backend.*Allowed choices are auto, cpu, cuda, emu/],
    [['bench', '--backend', 'emu'], /emulated kernels are right or wrong, never fast/],
    [['bench', 'nowhere.js'], /script is nowhere.js, which is not there, expected a file/],
    [['bench', 'a.js', 'gemm'], /a script runs alone/],
    [
      ['bench', '--out', '/nowhere/at/all.jsonl'],
      /--out is \/nowhere\/at\/all.jsonl, expected a file in a folder that exists/,
    ],
    [['check', 'gem'], /operator is "gem"; did you mean "gemm"\?/],
    [['check', '--case', 'f32, 17 x 17 x 18'], /case is "f32, 17 x 17 x 18"; did you mean/],
    [['check', '--case', 'a', '--fuzz', '2'], /exclude each other/],
    [['check', '--fuzz', '-1'], /--fuzz/],
    [['check', '--seed', 'x'], /--seed.*whole number/],
    [['check', '--device', 'gpu'], /openDevice: device is gpu, expected/],
    [['measure'], /unknown command 'measure'/],
    [['bench', '--fast'], /unknown option '--fast'/],
  ])('%j', async (args, message) => {
    const { code, out, err } = await kernwatt(...args);
    expect(err).toMatch(message);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).not.toMatch(/\n\s+at /);
  });

  test('help and version are no errors', async () => {
    expect((await kernwatt('--help')).code).toBe(0);
    expect((await kernwatt('bench', '--help')).out).toMatch(/--shape <sizes>/);
    expect(await kernwatt('--version')).toMatchObject({ code: 0, out: '0.1.0\n' });
  });
});

describe('examples run as they are', () => {
  // Servers run until they are told to stop: test/server.test.ts, test/prometheus/exporter.test.ts.
  const servers = ['server.mjs', 'metrics.mjs'];
  test.each(readdirSync(join(root, 'examples')).filter((name) => !servers.includes(name)))('%s', async (name) => {
    const { code, out, err } = await run(join(root, 'examples', name));
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).not.toMatch(/NaN|undefined/);
  });

  test('measure-to-file.mjs wrote a valid record', () => {
    const lines = readFileSync(join(folder, 'records.jsonl'), 'utf8').trimEnd().split('\n');
    expect(complaints(JSON.parse(lines.at(-1)!))).toEqual([]);
  });
});
