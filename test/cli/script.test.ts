// `kernwatt bench ./mine.mjs` with what users get wrong: each failure says what, and where in whose file.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const folder = mkdtempSync(join(tmpdir(), 'kernwatt-script-'));
mkdirSync(join(folder, 'node_modules'));
symlinkSync(root, join(folder, 'node_modules/kernwatt'));
afterAll(() => rmSync(folder, { recursive: true }));

function bench(name: string, text: string | null, ...flags: string[]) {
  if (text !== null) writeFileSync(join(folder, name), text);
  const args = [join(root, 'dist/cli/main.js'), 'bench', name, '--backend', 'cpu', ...flags];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
  return { code: status, out: stdout, err: stderr };
}

test.each([
  ['missing.mjs', null, 'bench: script is missing.mjs, which is not there, expected a file'],
  ['./node_modules', null, 'bench: script is ./node_modules, a folder, expected a file'],
  ['./mine', null, 'bench: script is ./mine, which is not there, expected a file'],
  ['empty.mjs', 'export const a = 1;', 'bench: the default export of empty.mjs is undefined, expected a function'],
  ['text.mjs', 'export default "no";', "bench: the default export of text.mjs is 'no', expected a function"],
])('%s makes no sense: one sentence, exit code 2', (name, text, message) => {
  const { code, out, err } = bench(name, text);
  expect(err).toContain(message);
  expect(err.trimEnd().split('\n')).toHaveLength(1);
  expect({ code, out }).toEqual({ code: 2, out: '' });
});

test.each(['shape=m=1', 'dtype=f32', 'cache=hot', 'seed=3', 'group=x'])('--%s is not for scripts', (flag) => {
  const [, name, value] = /^(\w+)=(.*)$/.exec(flag)!;
  const { code, err } = bench('any.mjs', 'export default () => {};', `--${name}`, value!);
  expect(err).toContain(`bench: --${name} is given with a script, which chooses that itself`);
  expect(code).toBe(2);
});

describe('a script that fails: its own file and line, exit code 1', () => {
  test.each([
    ['throws.mjs', 'export default () => {\n  undefined.x;\n};', 'failed', /throws\.mjs:2[\s\S]*TypeError: .*'x'/],
    ['loads.mjs', '\n\nthrow new Error("at once");', 'cannot be loaded', /loads\.mjs:3[\s\S]*Error: at once/],
    ['syntax.mjs', 'export default () => {\n  const = 3;\n};', 'cannot be loaded', /syntax\.mjs:2[\s\S]*SyntaxError/],
    ['imports.mjs', "import './gone.mjs';", 'cannot be loaded', /Cannot find module .*gone\.mjs/],
    [
      'shapes.mjs',
      "import { gemm } from 'kernwatt';\nexport default ({ device: d }) => gemm({ x: d.zeros([2, 2]), w: d.zeros([3, 3]) });",
      'failed',
      /gemm: w has k 3, but x has 2[\s\S]*shapes\.mjs:2/,
    ],
  ])('%s', (name, text, what, place) => {
    const { code, out, err } = bench(name, text);
    expect(err).toMatch(new RegExp(`^kernwatt: bench: ${name} ${what}\n`));
    expect(err).toMatch(place);
    expect({ code, out }).toEqual({ code: 1, out: '' });
  });

  test('what it measured before is printed and kept', () => {
    const text = `export default async ({ measure }) => {
      await measure(() => 1, { name: 'first', quick: true, maxSeconds: 0.1 });
      throw new Error('then this');
    };`;
    const { code, out, err } = bench('late.mjs', text, '--out', 'late.jsonl');
    expect(code).toBe(1);
    expect(out).toMatch(/^first /m);
    expect(err).toContain('then this');
    expect(JSON.parse(readFileSync(join(folder, 'late.jsonl'), 'utf8')).case.name).toBe('first');
  });
});

test('what a script returns: rows are a table, the rest is shown, nothing is said to be nothing', () => {
  expect(bench('rows.mjs', 'export default () => [{ a: 1, b: "x" }];').out).toMatch(/^a +b\n-+\n1 +x$/m);
  expect(bench('number.mjs', 'export default async () => 42;').out).toMatch(/^42$/m);
  expect(bench('list.mjs', 'export default () => [1, 2];').out).toMatch(/^\[ 1, 2 \]$/m);
  expect(bench('common.cjs', 'module.exports = ({ device }) => [{ device: device.name }];').out).toMatch(/^cpu$/m);
  const { code, out } = bench('silent.mjs', 'export default () => {};');
  expect(out).toBe('silent.mjs measured nothing and returned nothing\n');
  expect(code).toBe(0);
});

test('--quick is the default of its measure(), which the script may override', () => {
  const text = `export default async ({ measure }) => {
    const target = async (options) => (await measure(() => 1, { maxSeconds: 0.1, ...options })).time.host.stop.target;
    return [await target(), await target({ quick: false })];
  };`;
  const { result } = JSON.parse(bench('quick.mjs', text, '--quick', '--json').out);
  expect(result).toEqual([0.05, 0.01]);
});
