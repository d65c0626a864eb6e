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
  for (const part of [/^qwen2\.5-1\.5b o decode, bf16, f16, int4 in turns$/m, /^For context, Table 9/m, /^- int4/m])
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
    ['device', 'int4'],
    ['host', 'bf16'],
    ['host', 'f16'],
    ['host', 'int4'],
  ]);
  for (const record of records) expect(complaints(record)).toEqual([]);
  const { MCR } = records[2].metrics;
  // Four times and 16 / 4.125 times what is kept.
  expect(MCR.paper.MCR.value / MCR.honest.MCR.value).toBeCloseTo(4.125 / 4, 6);
  expect(MCR.paper.MCR.value).toBeGreaterThan(4 * 0.8);
  expect(MCR.paper.MCR.value).toBeLessThan(4 * 0.95);

  const again = bench(...one, '--out', 'q.jsonl', '--json');
  expect(again).toMatchObject({ code: 0, err: '' });
  expect(read()).toBe(lines);
  const { notes, records: fresh, result } = JSON.parse(again.out);
  expect(fresh).toEqual([]);
  expect(notes).toEqual([expect.stringMatching(/^not measured again, finished in q\.jsonl on this machine/)]);
  expect(result).toMatchObject([
    { suite: 'quantization', group: 'qwen2.5-1.5b o decode', members: ['bf16', 'f16', 'int4'], ratios: [null, {}, {}] },
  ]);
  expect(result[0].records.device).toEqual(records.slice(0, 3).map(({ id }) => id));
  const bits = Object.fromEntries(
    result[0].fidelity.map((one: { label: string; bits: object }) => [one.label, one.bits]),
  );
  expect(bits.int4).toEqual({ nominal: 4, stored: 4.125 });
  const error = (label: string) =>
    result[0].fidelity.find((one: { label: string }) => one.label === label).relativeError;
  expect(error('f16')).toBeLessThan(error('bf16'));
  expect(error('bf16')).toBeLessThan(error('int4') / 10);
  expect(Object.keys(result[0].scores)).toEqual(['honest', 'paper']);
}, 120_000);

test.each([
  [['attentoin'], /operator or suite is "attentoin"; did you mean "attention"\?/],
  [
    ['softmax'],
    /expected quick, models, attention_gqa, attention_gqa_backward, attention_gqa_paged, attention_merge, attention_mla, gemm, gemm_int4, kv_append, nsa_attend, nsa_compress, peak, rope, attention, quantization, positions/,
  ],
  [['attention', 'gemm'], /bench: gemm is given with suite attention, expected suites alone/],
  [['attention', '--shape', 'lenQ=1'], /--shape is given with suite attention, whose shapes and types are fixed/],
  [['attention', '--dtype', 'f32'], /--dtype is given with suite attention/],
  [['attention', '--group', 'efficientllm-0.5b'], /--group is "efficientllm-0.5b"; expected/],
  [['gemm', '--group', 'x'], /--group is "x", expected with a suite: attention, quantization, positions/],
  [['mine.mjs', '--group', 'x'], /--group is given with a script, which chooses that itself/],
])('bench %j: one sentence, exit code 2', (args, message) => {
  const { code, out, err } = bench(...args);
  expect(err).toMatch(message);
  expect({ code, out }).toEqual({ code: 2, out: '' });
});
