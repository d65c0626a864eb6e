// `kernwatt bench SUITE` as a user runs it: one group, resumed from its own records; bad input. Needs dist/ and the addon.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { complaints } from '../measure/record.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'kernwatt-suite-'));
afterAll(() => rmSync(folder, { recursive: true }));
beforeAll(() => {
  if (!existsSync(join(root, 'dist/cli/main.js'))) throw new Error('dist/ is missing: npm run build');
});

function bench(...args: string[]) {
  const command = [join(root, 'dist/cli/main.js'), 'bench', ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: folder, encoding: 'utf8' });
  return { code: status, out: stdout, err: stderr };
}

const one = ['quantization', '--quick', '--backend', 'cpu', '--cache', 'hot', '--group', 'qwen2.5-1.5b o decode'];

test('a group is measured by both clocks, written, and not measured again', () => {
  const first = bench(...one, '--out', 'q.jsonl');
  expect(first).toMatchObject({ code: 0, err: '' });
  for (const part of [/^qwen2\.5-1\.5b o decode, bf16, f16 in turns$/m, /^For context, Table 9/m, /^- int4/m])
    expect(first.out).toMatch(part);
  expect(first.out).not.toMatch(/NaN|undefined/);
  const read = () => readFileSync(join(folder, 'q.jsonl'), 'utf8');
  const lines = read();
  const records = lines
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(records.map(({ time, case: { name } }) => [time.headline, name.split(' ').at(-1)])).toEqual([
    ['device', 'bf16'],
    ['device', 'f16'],
    ['host', 'bf16'],
    ['host', 'f16'],
  ]);
  for (const record of records) expect(complaints(record)).toEqual([]);

  const again = bench(...one, '--out', 'q.jsonl', '--json');
  expect(again).toMatchObject({ code: 0, err: '' });
  expect(read()).toBe(lines);
  const { notes, records: fresh, result } = JSON.parse(again.out);
  expect(fresh).toEqual([]);
  expect(notes).toEqual([expect.stringMatching(/^not measured again, finished in q\.jsonl on this machine/)]);
  expect(result).toMatchObject([
    { suite: 'quantization', group: 'qwen2.5-1.5b o decode', members: ['bf16', 'f16'], ratios: [null, {}] },
  ]);
  expect(result[0].records.device).toEqual(records.slice(0, 2).map(({ id }) => id));
  expect(Object.keys(result[0].scores)).toEqual(['honest', 'paper']);
}, 120_000);

test.each([
  [['attentoin'], /operator or suite is "attentoin"; did you mean "attention"\?/],
  [
    ['softmax'],
    /expected quick, models, attention_gqa, attention_merge, gemm, gemm_int4, peak, attention, quantization/,
  ],
  [['attention', 'gemm'], /bench: gemm is given with suite attention, expected suites alone/],
  [['attention', '--shape', 'lenQ=1'], /--shape is given with suite attention, whose shapes and types are fixed/],
  [['attention', '--dtype', 'f32'], /--dtype is given with suite attention/],
  [['attention', '--group', 'efficientllm-0.5b'], /--group is "efficientllm-0.5b"; expected/],
  [['gemm', '--group', 'x'], /--group is "x", expected with a suite: attention, quantization/],
  [['mine.mjs', '--group', 'x'], /--group is given with a script, which chooses that itself/],
])('bench %j: one sentence, exit code 2', (args, message) => {
  const { code, out, err } = bench(...args);
  expect(err).toMatch(message);
  expect({ code, out }).toEqual({ code: 2, out: '' });
});
