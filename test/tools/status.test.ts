// npm run gpu:status (tools/ledger.mjs status): from kernels.json and ledgers written by hand.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Kernel, kernel, kernelsJson, sha } from './library.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kernwatt-status-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const put = (path: string, content: unknown) => {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), JSON.stringify(content));
};

const kernels = [
  kernel('plain', 'sm_80', 'gemm'),
  kernel('plain', 'sm_90', 'gemm'),
  kernel('wide', 'sm_90a', 'gemm'),
  kernel('odd', 'sm_90', 'unheard_of'),
];

const tree = () => put('.build/cuda/kernels.json', kernelsJson(kernels));

const about = { date: '2026-11-22T10:00:00+00:00', driver: '580.1', commit: 'c0ffee', dirty: false };
/** An entry of the ledger for a kernel, with so many measurements. */
function entry({ symbol: _, ...code }: Kernel, figures: number) {
  const measurement = (i: number) => ({
    ...{ case: `case ${i}`, metric: 'time', value: 1e-3, unit: 's', ci95: null, cache: 'cold', flags: [] },
    ...{ kernels: [`${code.name} ${code.arch}`], peer: null, peerVersion: null, ratio: null, ratioCi95: null },
    ...about,
    file: 'peers.jsonl',
  });
  const proved = { ...about, cases: 3, exactCases: 1, sanitized: ['memcheck'] };
  return { ...code, proved, measured: Array.from({ length: figures }, (_, i) => measurement(i)) };
}
const ledger = (list: object[], conformance: object | null = null) =>
  put('bench/results/h200/ledger.json', {
    schema: 'kernwatt.ledger/0',
    gpu: { name: 'NVIDIA H200', cc: '9.0' },
    conformance,
    kernels: list,
  });

function status(...args: string[]) {
  const result = spawnSync(process.execPath, ['tools/ledger.mjs', 'status', ...args, '--root', root], {
    encoding: 'utf8',
  });
  return { status: result.status, stdout: result.stdout, stderr: result.stderr };
}

test('without kernels.json one line says how to make it', () => {
  const { status: code, stderr } = status();
  expect(code).toBe(2);
  expect(stderr).toMatch(/^ledger: .*kernels\.json does not exist; make it with: npm run build:cuda\n$/);
});

test('without a ledger nothing is proved, and the next command is named', () => {
  tree();
  const { status: code, stdout } = status();
  expect(code).toBe(0);
  expect(stdout).toContain('no kernel has been proved on a GPU yet: 4 unproved');
  expect(stdout).toContain('PTX conformance: not yet recorded on a GPU');
  expect(stdout).toMatch(/\nnext: tools\/gpu-run\.sh OUTDIR .*npm run gpu:record -- OUTDIR\n$/);
});

test('proved, stale and unproved by operator, most valuable first', () => {
  tree();
  ledger([entry(kernels[1]!, 1), entry({ ...kernels[2]!, hash: sha('before') }, 2)], { ...about, results: 150 });
  const { stdout } = status();
  expect(stdout).toContain('1 of 4 kernels proved on a GPU, 1 stale, 2 unproved (bench/results/{h200})');
  expect(stdout).toMatch(
    /gemm: 1 proved, 1 stale, 1 unproved; \d+ shapes of served models\n {2}stale .*wide {2}other code/,
  );
  expect(stdout).toContain('other code proved on h200, 2026-11-22; 2 figures no longer hold');
  expect(stdout.indexOf('gemm:')).toBeLessThan(stdout.indexOf('unheard_of:'));
  expect(stdout).toContain('PTX conformance: 150 results recorded on h200, 2026-11-22, driver 580.1');
});

test.each([
  ['code', { hash: sha('before') }],
  ['ptxas', { ptxas: '13.3.20' }],
  ['flags', { flags: '-O3 -maxrregcount=64' }],
])('other %s makes a kernel stale', (_, other) => {
  tree();
  ledger([entry({ ...kernels[1]!, ...other }, 0)]);
  expect(JSON.parse(status('--json').stdout).counts).toEqual({ proved: 0, stale: 1, unproved: 3 });
});

test('everything as JSON; nothing is next when all is proved', () => {
  tree();
  ledger(
    kernels.map((k) => entry(k, 0)),
    { ...about, results: 150 },
  );
  const { status: code, stdout } = status('--json');
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    schema: 'kernwatt.status/0',
    counts: { proved: 4, stale: 0, unproved: 0 },
    ledgers: ['h200'],
    conformance: [{ gpu: 'h200', results: 150 }],
    next: null,
  });
  expect(status().stdout).toContain('next: nothing; every kernel of this tree is proved');
});

test('a ledger that is not one is named', () => {
  tree();
  put('bench/results/h200/ledger.json', { schema: 'kernwatt.ledger/9' });
  expect(status()).toMatchObject({ status: 1, stderr: expect.stringContaining('h200/ledger.json') });
});
