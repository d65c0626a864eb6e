// npm run gpu:record and gpu:status (tools/ledger.mjs), on runs made by hand: a root with two kernels, results of a GPU, and
// everything that can be wrong with them.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { kernel, kernelsJson, library, sha } from './library.js';

let root: string;
let out: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kernwatt-ledger-'));
  out = join(root, 'out');
  mkdirSync(out);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const conformance = '# device NVIDIA H200, sm_90\nldmatrix_x4\texact\t128\t1f\n';

/** Two kernels, each with machine code for two architectures. */
const kernels = ({ one = 'first', two = 'second' } = {}) =>
  kernelsJson(
    ['sm_80', 'sm_90'].flatMap((arch) => [kernel('one', arch, 'gemm', one), kernel('two', arch, 'gemm', two)]),
  );
type Kernels = ReturnType<typeof kernels>;

const put = (path: string, content: unknown) => {
  mkdirSync(join(root, path, '..'), { recursive: true });
  writeFileSync(join(root, path), typeof content === 'string' ? content : JSON.stringify(content));
};
const jsonl = (...lines: object[]) => lines.map((line) => `${JSON.stringify(line)}\n`).join('');
const case_ = (name: string, kernel: string[], state = 'passed', exact = false) => {
  const reasons = state === 'passed' ? [] : ['y[0] is 1, expected 2'];
  return { op: 'gemm', case: name, state, reasons, exact, kernels: kernel, seconds: 0.1 };
};
const part = (name: string, state = 'passed', exit: number | null = 0) => {
  return { name, state, exit, seconds: 1, limit: 60, summary: `${name} ${state}`, files: [] };
};
const run = (made: Kernels) => ({
  schema: 'kernwatt.gpu/0',
  started: '2026-11-22T10:00:00+00:00',
  commit: 'c0ffee' as string | null,
  dirty: false,
  kernels: made.digest as string | null,
  library,
  device: { name: 'NVIDIA H200', uuid: 'GPU-1', cc: '9.0', driver: '580.1', runtime: '13.0', emulated: false },
  parts: [part('conformance'), part('check'), part('sanitize'), part('peers')],
});

const clock = (median: number) => ({ median, ci95Median: [0.8 * median, 1.25 * median] });
/** A line of bench/peers/gpu.py, as far as the ledger reads it. */
function measured(symbols: string[]) {
  return {
    ...{ schema: 'kernwatt.peers-gpu/0', state: 'measured', reason: null, flags: [] },
    case: { name: 'llama-3-8b qkv', op: 'gemm', cache: 'cold' },
    peer: { name: 'torch', call: 'torch.matmul' },
    kernel: { explain: { variant: 'mma' }, workspaceBytes: 0, symbols },
    correctness: { state: 'passed', ours: { failed: 0 } },
    time: { cache: 'cold', ours: clock(0.00025), peer: clock(0.0002) },
    comparison: { baseline: 'torch', ratio: 1.25, ci95: [1.2, 1.3] },
    rate: { ours: { flopsPerSecond: 550e12, bytesPerSecond: 1.5e12 } },
    env: { device: { emulated: false }, library: { sha256: library }, torch: '2.9.0', cuda: '13.0', cudnn: '91000' },
  };
}
const wrong = { state: 'failed', time: null, rate: null, comparison: null };
/** Only peers take part. */
const bandwidth = { ...measured([]), kernel: null, comparison: null };

/** A complete run on a GPU, with changes. */
function results(change: { run?: object; check?: string; sanitize?: object; peers?: string; kernels?: Kernels } = {}) {
  const made = change.kernels ?? kernels();
  put('out/run.json', { ...run(made), ...change.run });
  put('out/kernels.json', made);
  put(
    'out/check.jsonl',
    change.check ?? jsonl(case_('a', ['_Z3onev'], 'passed', true), case_('b', ['_Z3onev', '_Z3twov'])),
  );
  const clean = { state: 'passed', errors: 0, cases: 1 };
  put(
    'out/sanitize.json',
    change.sanitize ?? { memcheck: clean, racecheck: clean, synccheck: { ...clean, state: 'timeout' } },
  );
  for (const tool of ['memcheck', 'racecheck', 'synccheck'])
    put(`out/sanitize-${tool}.jsonl`, jsonl(case_('a', ['_Z3onev'])));
  put('out/peers.jsonl', change.peers ?? jsonl(bandwidth, measured(['_Z3onev'])));
  put('out/conformance.txt', conformance);
}
const tree = (made = kernels()) => put('.build/cuda/kernels.json', made);

function tool(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['tools/ledger.mjs', ...args, '--root', root], {
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}
const record = () => tool('record', out);
const file = () => join(root, 'bench/results/h200/ledger.json');
const text = () => (existsSync(file()) ? readFileSync(file(), 'utf8') : null);
interface Entry {
  name: string;
  arch: string;
  hash: string;
  proved: { cases: number; exactCases: number; sanitized: string[]; date: string };
  measured: {
    case: string;
    metric: string;
    value: number;
    peerVersion: string | null;
    ratio: number;
    kernels: string[];
  }[];
}
const entries = (): Entry[] => JSON.parse(text()!).kernels;

/** Refused: one line, an exit code, and the ledger as it was. */
function refused(reason: string, status = 1) {
  const before = text();
  const result = record();
  expect(result.stderr).toContain(reason);
  expect(result.stderr.trim().split('\n')).toHaveLength(1);
  expect(result).toMatchObject({ status, stdout: '' });
  expect(text()).toBe(before);
}

describe('gpu:record', () => {
  beforeEach(() => tree());

  test('takes proofs, measurements and the golden file of a run', () => {
    results();
    const { status, stdout, stderr } = record();
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(stdout).toContain('synccheck: timeout, so it says nothing about any kernel');
    expect(stdout).toContain('2 kernels proved, 3 results recorded, 0 kernels failed');
    const ledger = JSON.parse(text()!);
    const validate = new Ajv2020().compile(JSON.parse(readFileSync('src/schema/ledger.json', 'utf8')));
    expect(validate(ledger), JSON.stringify(validate.errors)).toBe(true);
    expect(ledger.conformance).toMatchObject({ driver: '580.1', results: 1 });
    expect(entries().map(({ name, arch }) => `${name} ${arch}`)).toEqual(['one sm_90', 'two sm_90']); // what an H200 runs
    expect(entries()[0]).toMatchObject({
      hash: kernels().kernels.find((k) => k.name === 'one' && k.arch === 'sm_90')!.hash,
      proved: { cases: 2, exactCases: 1, sanitized: ['memcheck', 'racecheck'], driver: '580.1', commit: 'c0ffee' },
    });
    expect(entries()[1]).toMatchObject({ proved: { cases: 1, exactCases: 0, sanitized: [] }, measured: [] });
    expect(entries()[0]!.measured).toMatchObject([
      { metric: 'bandwidth', value: 1.5e12, unit: 'B/s' },
      {
        metric: 'flops',
        value: 550e12,
        unit: 'FLOP/s',
        peer: 'torch',
        peerVersion: 'torch 2.9.0, CUDA 13.0, cuDNN 91000',
      },
      { metric: 'time', value: 0.00025, ci95: [0.0002, 0.0003125], ratio: 1.25, ratioCi95: [1.2, 1.3], cache: 'cold' },
    ]);
    expect(readFileSync(join(root, 'bench/results/h200/conformance.txt'), 'utf8')).toBe(conformance);
    expect(readdirSync(join(root, 'bench/results/h200')).sort()).toEqual(['conformance.txt', 'ledger.json']);
  });

  test('the same run twice changes nothing; a later one replaces what it measured again', () => {
    results();
    record();
    const first = text();
    record();
    expect(text()).toBe(first);
    const line = measured(['_Z3onev']);
    const hot = { ...line, time: { ...line.time, cache: 'hot', ours: clock(0.0001) } };
    const again = { ...line, comparison: { ...line.comparison, ratio: 1.1, ci95: null } };
    results({ run: { started: '2026-11-23T10:00:00+00:00' }, peers: jsonl(again, hot) });
    expect(record().status).toBe(0);
    const times = entries()[0]!.measured.filter(({ metric }) => metric === 'time');
    expect(times).toMatchObject([
      { cache: 'cold', ratio: 1.1, date: '2026-11-23T10:00:00+00:00' },
      { cache: 'hot', value: 0.0001 },
    ]);
    expect(entries()[0]!.measured).toHaveLength(6);
  });

  test('newer code replaces its entry and its measurements; other kernels keep theirs', () => {
    results();
    record();
    const newer = kernels({ one: 'rewritten' });
    tree(newer);
    results({ kernels: newer, check: jsonl(case_('a', ['_Z3onev'])), peers: '' });
    expect(record().status).toBe(0);
    expect(entries()[0]).toMatchObject({
      hash: newer.kernels.find((k) => k.name === 'one' && k.arch === 'sm_90')!.hash,
      measured: [],
    });
    expect(entries()[1]).toMatchObject({ name: 'two', proved: { cases: 1 } });
  });

  test('a failed case proves nothing about its kernels and withdraws their proof', () => {
    results();
    record();
    const check = jsonl(case_('a', ['_Z3onev']), case_('b', ['_Z3onev', '_Z3twov'], 'failed'), case_('c', ['_Z3twov']));
    results({ run: { parts: [part('check', 'failed', 1)] }, check });
    const { status, stdout } = record();
    expect(status).toBe(1);
    expect(stdout).toContain('FAILED one sm_90: 1 case, first gemm "b"; its earlier proof is withdrawn');
    expect(stdout).toContain('FAILED two sm_90');
    expect(entries()).toEqual([]);
  });

  test('a failure of other code leaves the older proof, which is stale by then', () => {
    results();
    record();
    const newer = kernels({ one: 'rewritten' });
    tree(newer);
    results({
      kernels: newer,
      run: { parts: [part('check', 'failed', 1)] },
      check: jsonl(case_('a', ['_Z3onev'], 'failed')),
    });
    expect(record()).toMatchObject({ status: 1, stdout: expect.not.stringContaining('withdrawn') });
    expect(entries()).toHaveLength(2);
  });

  test('a wrong result of ours beside a peer counts as a failed case, one of the peer does not', () => {
    const ours = {
      ...measured(['_Z3twov']),
      ...wrong,
      reason: 'torch: kernwatt: 3 of 9',
      correctness: { ours: { failed: 3 } },
    };
    const theirs = {
      ...measured(['_Z3onev']),
      ...wrong,
      reason: 'torch: the peer: 3 of 9',
      correctness: { ours: { failed: 0 } },
    };
    results({ peers: jsonl(ours, theirs) });
    expect(record()).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('FAILED two sm_90: 1 case, first "llama-3-8b qkv" beside torch'),
    });
    expect(entries().map(({ name }) => name)).toEqual(['one']);
  });

  test('a check that was cut off proves nothing, but its failures count', () => {
    results();
    record();
    const cut = `${jsonl(case_('a', ['_Z3onev']), case_('b', ['_Z3twov'], 'failed'))}{"op":"ge`;
    results({ run: { parts: [part('check', 'timeout', 124)] }, check: cut });
    const { status, stdout } = record();
    expect(status).toBe(1);
    expect(stdout).toContain('the last line is cut short and left out');
    expect(stdout).toContain('check timeout after 1 passed cases: an unfinished check proves no kernel');
    expect(entries().map(({ name }) => name)).toEqual(['one']);
    results({ run: { parts: [part('check', 'interrupted', null)] }, check: jsonl(case_('a', ['_Z3onev'])) });
    rmSync(join(root, 'bench'), { recursive: true });
    refused('an unfinished check proves no kernel');
  });

  test('measurements of a kernel that is not proved are left out aloud; a cut line of an interrupted part too', () => {
    results({
      run: { parts: [part('check'), part('peers', 'timeout', 124)] },
      check: jsonl(case_('a', ['_Z3onev'])),
      peers: `${jsonl(measured(['_Z3onev', '_Z3twov']), measured(['_Z3onev']))}{"schema`,
    });
    const { stdout, status } = record();
    expect(status).toBe(0);
    expect(stdout).toContain('not recorded: llama-3-8b qkv (cold), because two sm_90 is not proved');
    expect(stdout).toContain('peers.jsonl: the last line is cut short and left out');
    expect(stdout).toContain('conformance did not run');
    expect(entries()[0]!.measured).toHaveLength(3);
  });

  test.each<[string, () => void]>([
    ['was run on the emulator', () => results({ run: { device: { ...run(kernels()).device, emulated: true } } })],
    ['does not say which kernels ran', () => results({ run: { kernels: null } })],
    ['results come from other kernels', () => results({ kernels: kernels({ two: 'other' }) })],
    ['of another library than run.json', () => results({ run: { library: sha('another') } })],
    [
      'do not have the digest it names',
      () => {
        results();
        put('out/kernels.json', { ...kernels(), digest: sha('no') });
      },
    ],
    ['check is not among the parts that ran', () => results({ run: { parts: [part('peers')] } })],
    ['check could not run', () => results({ run: { parts: [part('check', 'missing', 77)] } })],
    ['memcheck found 3 errors', () => results({ sanitize: { memcheck: { state: 'failed', errors: 3, cases: 2 } } })],
    ['which kernels.json lacks', () => results({ check: jsonl(case_('a', ['_Z5otherv'])) })],
    [
      'has no machine code for compute capability 10.0',
      () => results({ run: { device: { ...run(kernels()).device, cc: '10.0' } } }),
    ],
    [
      'line 2 is cut short, although its part finished',
      () => results({ check: `${jsonl(case_('a', ['_Z3onev']))}{"op"` }),
    ],
    ['check.jsonl: line 1 is not JSON', () => results({ check: 'what?\n' })],
    ['check.jsonl: line 1: /state must be equal to one of', () => results({ check: jsonl(case_('a', [], 'fine')) })],
    [
      'check.jsonl does not exist',
      () => {
        results();
        rmSync(join(out, 'check.jsonl'));
      },
    ],
    [
      'run.json: malformed or cut short',
      () => {
        results();
        put('out/run.json', '{"schema": "kern');
      },
    ],
    [
      'run.json: /schema must be equal to constant kernwatt.gpu/0',
      () => results({ run: { schema: 'kernwatt.gpu/7' } }),
    ],
    ['run.json does not exist', () => undefined],
    [
      'sanitize.json: malformed',
      () => {
        results();
        put('out/sanitize.json', '{');
      },
    ],
    ['peers.jsonl: line 1: /schema must be', () => results({ peers: jsonl({ ...bandwidth, schema: 'x' }) })],
    ['peers.jsonl: line 1: /time must be object', () => results({ peers: jsonl({ ...measured([]), time: null }) })],
    [
      'peers.jsonl: line 1 comes from an emulated',
      () => results({ peers: jsonl({ ...bandwidth, env: { ...bandwidth.env, device: { emulated: true } } }) }),
    ],
    [
      'peers.jsonl: line 1 is of another library',
      () => results({ peers: jsonl({ ...bandwidth, env: { ...bandwidth.env, library: { sha256: sha('x') } } }) }),
    ],
    [
      'was recorded on emulator, expected NVIDIA H200',
      () => {
        results();
        put('out/conformance.txt', '# device emulator, sm_90\na\tb\n');
      },
    ],
    [
      'conformance.txt is empty or cut short',
      () => {
        results();
        put('out/conformance.txt', conformance.trimEnd());
      },
    ],
    [
      'ledger.json: malformed or cut short',
      () => {
        results();
        put('bench/results/h200/ledger.json', '{"sch');
      },
    ],
    [
      'ledger.json: /schema must be',
      () => {
        results();
        put('bench/results/h200/ledger.json', { schema: 'x', gpu: {}, conformance: null, kernels: [] });
      },
    ],
  ])('refuses with the ledger untouched: %s', (reason, make) => {
    make();
    refused(reason);
  });

  test('a case that fails before any kernel is launched keeps the others from being proved', () => {
    results({
      run: { parts: [part('check', 'failed', 1)] },
      check: jsonl(case_('a', ['_Z3onev']), case_('b', [], 'failed')),
    });
    refused('FAILED gemm "b", before any kernel was launched; no kernel is proved while');
  });

  test('needs kernels.json and a folder', () => {
    results();
    rmSync(join(root, '.build'), { recursive: true });
    refused('make it with: npm run build:cuda', 2);
    expect(tool('record')).toMatchObject({ status: 2, stderr: expect.stringContaining('usage') });
    expect(tool('record', out, '--force')).toMatchObject({ status: 2, stderr: expect.stringContaining('--force') });
  });
});
