// `kernwatt gate` as a build server runs it: exit codes 0, 1, 2, 3, files written, bad input by line, no addon needed.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { MeasureRecord } from '../../src/measure/record.js';
import { compared, made } from '../gate/records.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'kernwatt-gate-'));
afterAll(() => rmSync(folder, { recursive: true }));
beforeAll(() => {
  if (!existsSync(join(root, 'dist/cli/main.js'))) throw new Error('dist/ is missing: npm run build');
});

function gate(...args: string[]) {
  return gateOf(join(root, 'dist/cli/main.js'), ...args);
}

function gateOf(main: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'gate', ...args], {
    cwd: folder,
    encoding: 'utf8',
  });
  return { code: status, out: stdout, err: stderr };
}

function file(name: string, records: readonly MeasureRecord[], rest = ''): string {
  writeFileSync(join(folder, name), records.map((one) => `${JSON.stringify(one)}\n`).join('') + rest);
  return name;
}

function run(ratio: number, width = 0.005): MeasureRecord[] {
  const reference = made('plain');
  return [reference, compared('mine', reference, ratio, [ratio * (1 - width), ratio * (1 + width)])];
}

const base = file('base.jsonl', run(1));
const limit = ['--max-ratio', '1.05'];

test.each<[string, number, MeasureRecord[]]>([
  ['pass', 0, run(1)],
  ['fail', 1, run(1.2)],
  ['inconclusive', 2, run(1.05, 0.1)],
  ['inconclusive', 2, [made('mine')]],
])('%s: exit code %i', (verdict, code, news) => {
  const result = gate(base, file('new.jsonl', news), ...limit);
  expect(result).toMatchObject({ code, err: '' });
  expect(result.out.trimEnd().split('\n').at(-1)).toMatch(new RegExp(`^${verdict}: time at most 1.05 times BASE; `));
});

test('--json, --md and --junit say the same', () => {
  const news = file('new.jsonl', run(1.2));
  const { code, out, err } = gate(base, news, ...limit, '--json', '--md', 'gate.md', '--junit', 'gate.xml');
  expect(code).toBe(1);
  expect(err).toMatch(/^fail: time at most 1.05 times BASE; 0 pass, 1 fail, 0 inconclusive\n$/);
  expect(JSON.parse(out)).toMatchObject({
    schema: 'kernwatt.gate/0',
    metric: 'time',
    maxRatio: 1.05,
    verdict: 'fail',
    cases: [{ name: 'mine', verdict: 'fail', ratio: expect.closeTo(1.2, 9), places: ['new.jsonl:2', 'base.jsonl:2'] }],
    problems: [],
  });
  expect(readFileSync(join(folder, 'gate.md'), 'utf8')).toMatch(
    /^\*\*❌ fail: time[\s\S]*\| mine \(cold\) \| 1.200 \|/,
  );
  expect(readFileSync(join(folder, 'gate.xml'), 'utf8')).toMatch(/<testsuites tests="1" failures="1"[\s\S]*<failure /);
});

test('bad lines: exit code 3, one sentence each, and the good record is judged', () => {
  const negative = compared('mine', made('plain'), 1, [0.99, 1.01]);
  negative.energy = { ...negative.energy, perCallJ: { value: -1, unit: 'J', state: 'ok', basis: 'a test' } };
  const rest = [
    'hello',
    '{"schema":"other/1"}',
    JSON.stringify(made('x')).replace('measure/1', 'measure/9'),
    JSON.stringify(negative),
    JSON.stringify(made('y')).slice(0, 300),
  ];
  const news = file('broken.jsonl', run(1), rest.join('\n'));
  const { code, out, err } = gate(base, news, ...limit);
  expect(code).toBe(3);
  expect(out).toMatch(/^mine \(cold\) +1.000 .* pass$/m);
  expect(err.trimEnd().split('\n')).toEqual([
    expect.stringMatching(/^broken.jsonl:3: is not JSON/),
    expect.stringMatching(/^broken.jsonl:4: is not a record: schema is "other\/1"/),
    expect.stringMatching(/^broken.jsonl:5: schema is "kernwatt.measure\/9", expected/),
    expect.stringMatching(/^broken.jsonl:6: energy.perCallJ is -1 J, expected 0 or more/),
    expect.stringMatching(/^broken.jsonl:7: is cut off/),
  ]);
});

test('mixed machines and a metric that was not metered: exit code 3 with the lines', () => {
  const news = run(1).map((one) => ({ ...one, env: { ...one.env, cpu: { ...one.env.cpu, cores: 1024 } } }));
  const mixed = gate(base, file('mixed.jsonl', news), ...limit);
  expect(mixed.code).toBe(3);
  expect(mixed.err).toMatch(
    /^base.jsonl:2: cpu.cores is \d+, but 1024 in mixed.jsonl:2; numbers of different machines cannot be compared\n$/,
  );
  const joules = gate(base, file('new.jsonl', run(1)), ...limit, '--metric', 'energy.perCallJ');
  expect(joules.code).toBe(3);
  expect(joules.err).toMatch(/^new.jsonl:2: energy.perCallJ is not known: /);
});

describe('a request that makes no sense is 3 as well: 2 would say inconclusive', () => {
  test.each([
    [[base, base], /required option '--max-ratio <r>' not specified/],
    [[base, base, '--max-ratio', '0'], /expected a number above 0, such as 1.03/],
    [[base, base, '--max-ratio', 'much'], /expected a number above 0/],
    [[base, ...limit], /missing required argument 'new'/],
    [[base, base, ...limit, '--frobnicate'], /unknown option '--frobnicate'/],
    [
      [base, base, ...limit, '--metric', 'energy.percallj'],
      /gate: --metric is "energy.percallj"; did you mean "energy.perCallJ"\?/,
    ],
    [[base, 'nowhere.jsonl', ...limit], /file is nowhere.jsonl, expected one that can be read \(ENOENT\)/],
    [
      [base, base, ...limit, '--md', 'nowhere/gate.md'],
      /gate: --md is nowhere\/gate.md, expected a file that can be written/,
    ],
    [[file('empty.jsonl', []), 'empty.jsonl', ...limit], /hold no case to judge/],
  ])('%j', (args, message) => {
    const { code, out, err } = gate(...args);
    expect(code).toBe(3);
    expect(out + err).toMatch(message);
    expect(err).not.toMatch(/^ +at /m);
  });

  test('--help is no error', () => expect(gate('--help').code).toBe(0));
});

test('works without the addon', () => {
  const bare = join(folder, 'bare');
  mkdirSync(bare);
  cpSync(join(root, 'dist'), join(bare, 'dist'), { recursive: true });
  cpSync(join(root, 'package.json'), join(bare, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(bare, 'node_modules'));
  expect(gateOf(join(bare, 'dist/cli/main.js'), base, file('new.jsonl', run(1)), ...limit)).toMatchObject({
    code: 0,
    err: '',
  });
});
