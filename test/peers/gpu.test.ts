// bench/peers/gpu.py without a GPU: its struct layout and its estimators against the project's own, its Python tests,
// and a dry run over the emulated library with a torch that is a stub, or the real one where Python has it.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, type Device, gemm, gemmInt4, openDevice } from '../../src/index.js';
import { findLibrary, librarySearch } from '../../src/library.js';
import { Interleaved, mirroredBlocks } from '../../src/measure/interleave.js';
import { summarize } from '../../src/measure/stats.js';
import { decide, fullStop } from '../../src/measure/stop.js';
import { randomSource } from '../../src/random.js';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const peers = join(root, 'bench/peers');
const scratch = mkdtempSync(join(tmpdir(), 'kernwatt-peers-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const stub = { ...process.env, PYTHONPATH: `${peers}:${join(root, 'test/gpu/stub')}`, PYTHONDONTWRITEBYTECODE: '1' };
const python = (args: string[], env: NodeJS.ProcessEnv = stub) => {
  const { status, stdout, stderr } = spawnSync('python3', args, { cwd: root, env, encoding: 'utf8', timeout: 50_000 });
  return { status, stdout, stderr };
};
const program = join(peers, 'gpu.py');
const lines = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

const present = librarySearch('emu').some(({ path }) => existsSync(path));
const emulated = present ? findLibrary('emu').path : '';
if (!present) process.stdout.write('Skipped: dry run of bench/peers/gpu.py (build it with npm run build:cuda)\n');

describe('what Python takes from C++ and TypeScript', () => {
  test('layout.json is what the headers say', () => {
    const made = join(scratch, 'layout');
    execFileSync('g++', ['-std=c++20', '-o', made, join(peers, 'gpu/layout.cc')]);
    const now = JSON.parse(execFileSync(made, { encoding: 'utf8' }));
    const file = join(peers, 'gpu/layout.json');
    expect(JSON.parse(readFileSync(file, 'utf8')), `${file} is out of date; layout.cc says how to write it`).toEqual(
      now,
    );
  });

  test('estimators give the same numbers', () => {
    const next = randomSource(5);
    const series = [6, 7, 40, 41, 300].map((n) => {
      let drift = 0;
      return Array.from({ length: n }, () => {
        drift = 0.8 * drift + next();
        return 1 + drift;
      });
    });
    const order = [...mirroredBlocks(3, 20, randomSource(2 ** 40 + 9))];
    const seconds = Float64Array.from(order, (which) => 1 + which + next());
    const code = `
import json, sys
from gpu.stats import Interleaved, decide, mirrored_blocks, random_source, spread, summarize
given = json.load(sys.stdin)
seen = Interleaved(3)
seen.add(given['order'], given['seconds'])
print(json.dumps({
    'stats': [summarize(one) for one in given['series']],
    'order': mirrored_blocks(3, 20, random_source(2**40 + 9)),
    'ratios': seen.ratios(2, 1),
    'decisions': [decide(summarize(one), 1.0, at, [0.1] * 9, given['rule']) 
                  for one in given['series'] for at in (0.5, 14, 15)],
}))`;
    const { stdout, stderr } = spawnSync('python3', ['-c', code], {
      env: stub,
      encoding: 'utf8',
      input: JSON.stringify({ series, order, seconds: [...seconds], rule: fullStop }),
    });
    expect(stderr).toBe('');
    const theirs = JSON.parse(stdout);
    const rounded = (value: unknown) =>
      JSON.parse(JSON.stringify(value, (_, v) => (typeof v === 'number' ? Number(v.toPrecision(10)) : v)));
    expect(rounded(theirs.stats)).toEqual(rounded(series.map(summarize)));
    expect(theirs.order).toEqual(order);
    const seen = new Interleaved(3);
    seen.add(Uint32Array.from(order), seconds);
    expect(rounded(theirs.ratios)).toEqual(rounded([...seen.ratios(2, 1)]));
    const spreads = Array.from({ length: 9 }, () => 0.1);
    const decisions = series.flatMap((one) =>
      [0.5, 14, 15].map((elapsedSeconds) =>
        decide({ stat: summarize(one), measuredSeconds: 1, elapsedSeconds, spreads }, fullStop),
      ),
    );
    expect(theirs.decisions).toEqual(decisions);
    expect(new Set(decisions).size).toBeGreaterThan(1);
  });

  describe('work', () => {
    let device: Device;
    beforeAll(async () => {
      device = await openDevice('cpu');
    });
    afterAll(() => device.close());

    test('is counted as the operators count it', () => {
      const some = lines(python([program, '--tiny', '--list']).stdout);
      const counted = some.map((one) => {
        const { shape, dtype, args } = one;
        const empty = (dims: string[]) =>
          device.empty(
            dims.map((name) => shape[name]),
            dtype,
          );
        const kv = [shape.batch, shape.lenKv, shape.headsKv, shape.dim];
        const plan =
          one.op === 'gemm'
            ? gemm.bind({ x: empty(['m', 'k']), w: empty(['rowsW', 'k']) })
            : one.op === 'gemm_int4'
              ? gemmInt4.bind({
                  x: empty(['m', 'k']),
                  w: device.empty([shape.rowsW, shape.k], 'u4'),
                  scales: empty(['groups', 'rowsW']),
                })
              : one.op === 'attention_gqa'
                ? attentionGqa.bind({
                    q: empty(['batch', 'lenQ', 'headsQ', 'dim']),
                    k: device.empty(kv, dtype),
                    v: device.empty(kv, dtype),
                    ...args,
                  })
                : null;
        return plan ? { flops: plan.work.flops, minBytes: plan.work.bytes } : null;
      });
      for (const [i, work] of counted.entries()) if (work) expect(some[i], some[i].name).toMatchObject(work);
      expect(counted.filter(Boolean).length).toBe(some.length - 2);
    });
  });

  test('the Python tests pass', () => {
    const { status, stderr } = python([join(root, 'test/peers/test_gpu.py')]);
    expect(stderr).toMatch(/Ran \d\d tests/);
    expect(status, stderr).toBe(0);
  });
});

describe('without a device', () => {
  test('the cases are listed, most valuable first', () => {
    const { status, stdout } = python([program, '--list']);
    expect(status).toBe(0);
    const all = lines(stdout);
    expect(all[0]).toMatchObject({ op: 'read' });
    expect(all.find((one) => one.name === 'gemm 8192x8192x8192 bf16')).toMatchObject({
      flops: 2 * 8192 ** 3,
      peers: ['cublas'],
    });
    for (const one of all) expect(one.peers.length, one.name).toBeGreaterThan(0);
  });

  const out = join(scratch, 'refused.jsonl');
  test.each([
    ['no file to write', [], /--out is missing/],
    [
      'a library that is not there',
      ['--out', out, '--library', '/nowhere.so'],
      /\/nowhere.so does not load: .*No such file/,
    ],
    ['a library that is none', ['--out', out, '--library', program], /gpu.py does not load: .*invalid ELF header/],
    ['no time', ['--out', out, '--seconds', '0'], /--seconds is 0.0, expected a number above 0/],
    ['a case there is not', ['--out', out, '--only', 'nothing'], /--only is nothing, expected an operator or a part/],
  ])('refuses %s in one line', (_, args, reason) => {
    const { status, stderr } = python([program, ...args]);
    expect(stderr).toMatch(reason);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(status).toBe(2);
    expect(existsSync(out)).toBe(false);
  });
});

describe.skipIf(!present)('over the emulated library', () => {
  const read = (name: string) => JSON.parse(readFileSync(join(root, name), 'utf8'));
  const ajv = new Ajv2020({ allowUnionTypes: true });
  ajv.addSchema(read('src/schema/measure.json'));
  const valid = ajv.compile(read('bench/peers/gpu/schema.json'));
  const validate = (records: unknown[]) => {
    for (const record of records) expect(valid(record) ? null : valid.errors, JSON.stringify(record)).toBeNull();
  };
  const run = (...args: string[]) => python([program, '--library', emulated, '--tiny', ...args]);

  test('a dry run checks every case and times none', () => {
    const out = join(scratch, 'peers.jsonl');
    const { status, stdout, stderr } = run('--out', out);
    expect(stderr).toBe('');
    expect(status, stdout).toBe(0);
    const records = lines(readFileSync(out, 'utf8'));
    validate(records);
    expect(stdout).toMatch(/\n0 measured, \d+ emulated, 0 failed, 7 declined, 0 left-out\n$/);
    const kinds = new Set(records.map((one) => `${one.case.op} ${one.peer.name} ${one.state}`));
    for (const kind of [
      'copy copy_',
      'read amax',
      'read sum',
      'gemm cublas',
      'gemm_int4 cublas_dequantised',
      'attention_gqa sdpa_flash',
    ])
      expect(kinds).toContain(`${kind} emulated`);
    expect(kinds).toContain('attention_gqa sdpa_cudnn declined');
    for (const one of records.filter(({ state, kernel }) => state === 'emulated' && kernel)) {
      expect(one.correctness).toMatchObject({ state: 'passed', ours: { failed: 0 }, peer: { failed: 0 } });
      expect(one.kernel).toMatchObject({ explain: { variant: expect.any(String) }, symbols: [] });
    }
  });

  test('what the deadline leaves out is named and is no pass', () => {
    const out = join(scratch, 'late.jsonl');
    const { status, stdout } = run('--out', out, '--seconds', '0.001');
    expect(status).toBe(124);
    const records = lines(readFileSync(out, 'utf8'));
    validate(records);
    expect(new Set(records.map(({ state }) => state))).toEqual(new Set(['left-out']));
    expect(records[0].reason).toMatch(/0.0 s are left, expected 2.5 s for a case/);
    expect(stdout).toMatch(/ 20 left-out\n$/);
  });

  test('only what is asked for runs', () => {
    const out = join(scratch, 'only.jsonl');
    expect(run('--out', out, '--only', 'bandwidth', 'gemm 5').status).toBe(0);
    const names = lines(readFileSync(out, 'utf8')).map((one) => one.case.op);
    expect(new Set(names)).toEqual(new Set(['read', 'copy', 'gemm']));
    expect(names).toHaveLength(4);
  });

  test('a measured record holds what it should, by a clock that is made up', () => {
    const { status, stdout, stderr } = python([join(root, 'test/peers/simulated.py'), emulated]);
    expect(stderr).toBe('');
    expect(status).toBe(0);
    const records = lines(stdout);
    validate(records);
    const [refused, product] = records.filter((one) => one.case.op === 'gemm');
    expect(refused).toMatchObject({
      peer: { name: 'waits' },
      state: 'declined',
      reason: 'waits: no CUDA graph takes it: operation not permitted when stream is capturing',
    });
    expect(product.comparison).toMatchObject({ baseline: 'cublas', ratio: expect.closeTo(2, 1) });
    expect(product.rate.peer.flopsPerSecond).toBeCloseTo(product.work.flops / product.time.peer.median, 3);
    expect(product.utilisation.peer.ofPeakFlops).toMatchObject({ state: 'ok', value: expect.closeTo(1, 6) });
    expect(product.utilisation.ours.ofPeakFlops).toMatchObject({ state: 'ok', value: expect.closeTo(0.5, 1) });
    expect(summarize(product.samples.ours).median).toBeCloseTo(product.time.ours.median, 12);
    expect(product.samples.ours).toHaveLength(2 * product.comparison.blocks);
    expect(product.telemetry.during.throttled).toEqual(['sw-power-cap']);
  });

  test.each([
    ['a device there is not', ['--device', '9'], /--device is 9, expected 0 to 2/, 2],
    ['a file that cannot be written', ['--out', '/nowhere/x'], /--out is \/nowhere\/x: No such file/, 2],
  ])('refuses %s in one line', (_, args, reason, expected) => {
    const { status, stderr } = run('--out', join(scratch, 'refused.jsonl'), ...args);
    expect(stderr).toMatch(reason);
    expect(status).toBe(expected);
  });

  test('cases of real size, and a Python without torch', () => {
    const big = python([program, '--library', emulated, '--out', join(scratch, 'big.jsonl')]);
    expect([big.status, big.stderr]).toEqual([2, expect.stringContaining('an emulated device, expected with --tiny')]);
    const bare = python(['-S', program, '--library', emulated, '--tiny', '--out', join(scratch, 'bare.jsonl')], {
      ...stub,
      PYTHONPATH: peers,
    });
    expect([bare.status, bare.stderr]).toEqual([
      2,
      expect.stringMatching(/^gpu.py: torch: No module named 'torch'.*\n$/),
    ]);
  });

  /** gpu.py on gemm after `patch`, with `run` and `peers` in its hands. */
  const patched = (name: string, patch: string, ...args: string[]) => {
    const out = join(scratch, `${name}.jsonl`);
    const argv = [program, '--library', emulated, '--tiny', '--out', out, ...args];
    const code = `
import os, runpy, signal, sys
sys.argv = ${JSON.stringify(argv)}
from gpu import peers, run
${patch}
runpy.run_path(sys.argv[0], run_name='__main__')`;
    const { status, stdout, stderr } = python(['-c', code]);
    expect(stderr).toBe('');
    const records = lines(readFileSync(out, 'utf8'));
    validate(records);
    return { status, stdout, records };
  };

  test('a peer that is wrong or broken fails or declines alone', () => {
    const { status, records } = patched(
      'wrong',
      `
@peers.peer('gemm', 'wrong', 'nothing')
def wrong(torch, case):
    return lambda s: s['y'].copy_(s['x'].double() @ s['w'].t().double() * 1.1)
@peers.peer('gemm', 'idle', 'nothing')
def idle(torch, case):
    return lambda s: s['y']
@peers.peer('gemm', 'broken', 'nothing')
def broken(torch, case):
    raise RuntimeError('no kernel for this\\nat all')`,
      '--only',
      'gemm 17',
    );
    expect(status).toBe(1);
    const states = records.map(({ peer, state, reason }) => [peer.name, state, reason]);
    expect(states).toEqual([
      ['cublas', 'emulated', 'an emulated device is never timed'],
      ['wrong', 'failed', expect.stringMatching(/^wrong: the peer: \d+ of \d+ sampled elements are outside/)],
      ['idle', 'failed', expect.stringMatching(/^idle: the peer: .*the worst by no finite factor$/)],
      ['broken', 'declined', 'broken: no kernel for this'],
    ]);
  });

  test('a wrong or broken kernel of ours fails every peer and is named', () => {
    const wrong = patched('ours', 'run.Plan.enqueue = lambda self, stream: None', '--only', 'gemm 17');
    expect(wrong.status).toBe(1);
    expect(wrong.records[0]).toMatchObject({
      state: 'failed',
      reason: expect.stringMatching(/^kernwatt: \d+ of \d+ sampled elements/),
      kernel: { explain: { variant: expect.any(String) } },
      correctness: { state: 'failed', ours: { failed: expect.any(Number) }, peer: null },
    });
    const broken = patched(
      'fault',
      "def fault(self, stream): raise run.LibraryError('CUDA', 'gemm: illegal address')\nrun.Plan.enqueue = fault",
      '--only',
      'gemm 17',
    );
    expect(broken.records[0]).toMatchObject({ state: 'failed', reason: 'kernwatt: gemm: illegal address' });
    const declined = patched(
      'declined',
      "def refuse(*_): raise run.LibraryError('UNSUPPORTED', 'gemm: not today')\nrun.Plan.__init__ = refuse",
      '--only',
      'gemm 17',
    );
    expect([declined.status, declined.records[0].state]).toEqual([0, 'declined']);
  });

  test('a device that is lost ends the run', () => {
    const { status, records } = patched(
      'lost',
      `
def lost(self): raise RuntimeError('the device is gone')
@peers.peer('gemm', 'fatal', 'nothing')
def fatal(torch, case):
    import gpu.machine
    gpu.machine.EmulatedMachine.synchronize = lost
    raise RuntimeError('illegal address')`,
    );
    expect(status).toBe(1);
    const at = records.findIndex(({ peer }) => peer.name === 'fatal');
    expect(records[at]).toMatchObject({ state: 'failed', reason: 'fatal: the device is gone' });
    expect(new Set(records.slice(at + 1).map(({ reason }) => reason))).toEqual(
      new Set(['the device answers no more: the device is gone']),
    );
  });

  test('an ended run keeps what it has and names the rest', () => {
    const { status, records } = patched(
      'ended',
      `
case = run.Run.case
def ending(self, one, seconds):
    if one.op == 'gemm':
        os.kill(os.getpid(), signal.SIGTERM)
    case(self, one, seconds)
run.Run.case = ending`,
    );
    expect(status).toBe(124);
    expect(records.map(({ state }) => state).slice(0, 4)).toEqual(['emulated', 'emulated', 'emulated', 'left-out']);
    expect(records[3].reason).toBe('interrupted by SIGTERM');
    expect(records).toHaveLength(20);
  });
});

const cuda = librarySearch('cuda').some(({ path }) => existsSync(path)) ? findLibrary('cuda') : null;

test.skipIf(cuda === null || cuda.deviceCount > 0)(
  'the CUDA library without a GPU is refused with a status of its own',
  () => {
    const { status, stderr } = python([program, '--library', cuda!.path, '--out', join(scratch, 'none.jsonl')]);
    expect([status, stderr]).toEqual([77, expect.stringMatching(/^gpu.py: no device: .*\n$/)]);
  },
);
