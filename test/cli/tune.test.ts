// `kernwatt tune` as a user runs it: what it measures, what it keeps and where, what it says of operators with one way, bad input. Needs
// dist/.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { gemm, openDevice, type Tuning } from '../../src/index.js';
import { temporary } from '../meter/tree.js';
import { kernwatt } from './run.js';

const tune = (...args: string[]) => kernwatt(['tune', ...args]);

test('measures every configuration of a shape, keeps the decision and names its folder', async () => {
  const folder = temporary();
  const { code, out, err } = await tune(
    ...['gemm', '--shape', 'm=2,k=64,rowsW=64', '--dtype', 'f32', '--backend', 'cpu', '--threads', '1'],
    ...['--quick', '--folder', folder],
  );
  expect({ code, err }).toEqual({ code: 0, err: '' });
  await using device = await openDevice('cpu', { threads: 1, tuned: folder });
  using x = device.random([2, 64], 'f32', { seed: 1 });
  using w = device.random([64, 64], 'f32', { seed: 2 });
  using plan = gemm.bind({ x, w });
  const names = plan.configurations();
  expect(out).toMatch(
    new RegExp(`^m=2 k=64 rowsW=64 +m=2 k=64 rowsW=64 +f32 +cpu +${names.length} +${names[0]} +[\\d.]+ [nµm]s`, 'm'),
  );
  const [only] = readdirSync(join(folder, 'tuned'));
  expect(out).toContain(`kept in ${join(folder, 'tuned', only!)}: `);
  // The shape of the command line is the problem that a program binds, and the decision is found.
  expect(plan.explain().tuned!.state).toMatch(/^(used|kept)$/);
}, 60_000);

test('of operators with one way it says so and keeps nothing; JSON holds every result', async () => {
  const folder = temporary();
  const { code, out } = await tune('attention_merge', '--backend', 'cpu', '--json', '--folder', folder);
  expect(code).toBe(0);
  const { schema, notes, results } = JSON.parse(out) as { schema: string; notes: string[]; results: Tuning[] };
  expect({ schema, notes }).toEqual({ schema: 'kernwatt.tune/0', notes: [] });
  expect(results.length).toBeGreaterThan(0);
  for (const one of results) {
    expect(one).toMatchObject({ op: 'attention_merge', device: 'cpu', chosen: 'the only one', file: null });
    expect(one.reason).toContain('so nothing was measured');
  }
  expect(readdirSync(folder)).toEqual([]);
});

test('a request that makes no sense', async () => {
  expect(await tune('gem')).toMatchObject({
    code: 2,
    err: 'kernwatt: tune: operator or set of cases is "gem"; did you mean "gemm"?\n',
  });
  expect((await tune('--backend', 'emu')).err).toContain('tune: --backend is emu, expected auto, cpu or cuda');
  expect((await tune('--shape', 'm=2,z=3')).err).toContain('tune: no operator has the dimensions m, z');
  expect((await tune('--folder', '', 'gemm', '--backend', 'cpu')).err).toContain(
    'gemm.tune: folder is , expected a folder or null',
  );
});
