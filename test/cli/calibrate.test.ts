// `kernwatt calibrate` as a user runs it: ceilings and why there are no costs, what is kept and where, bad input. Needs dist/.
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { CalibrationResult } from '../../src/index.js';
import { temporary } from '../meter/tree.js';
import { kernwatt } from './run.js';

const calibrate = (cache: string, ...args: string[]) =>
  kernwatt(['calibrate', '--backend', 'cpu', '--threads', '1', '--quick', ...args], { XDG_CACHE_HOME: cache });

test('prints ceilings and costs or the reason, keeps them, and says so the next time', async () => {
  const cache = temporary();
  const first = await calibrate(cache);
  expect(first).toMatchObject({ code: 0, err: '' });
  expect(first.out).toMatch(/^cpu, .*: calibration [0-9a-f]{8} of \d{4}-\d\d-\d\dT[\d:.]+Z$/m);
  expect(first.out).toMatch(/^fma_f32 +[\d.]+ [GT]FLOP\/s +empirical: independent fma_f32 .* 1 threads/m);
  expect(first.out).toMatch(/^read +[\d.]+ [GT]B\/s +empirical: memory read/m);
  expect(first.out).toMatch(/^no dot_f16: cpu has no instruction for dot_f16: it multiplies in f32$/m);
  expect(first.out).toMatch(/^no energy costs: |^a second +[\d.]+ W/m);
  const [file] = readdirSync(join(cache, 'kernwatt'));
  expect(first.out).toContain(`kept in ${join(cache, 'kernwatt', file!)}\n`);

  const second = await calibrate(cache, '--json');
  const result = JSON.parse(second.out) as CalibrationResult & { schema: string };
  expect(result).toMatchObject({ schema: 'kernwatt.calibrate/1', cached: true, notes: [] });
  expect(first.out).toContain(`calibration ${result.calibration.id.slice(0, 8)} of`);
  expect(result.calibration.identity).toMatchObject({ kind: 'cpu', threads: 1 });
}, 120_000);

test('a home that cannot be written costs the cache alone', async () => {
  const cache = temporary();
  const blocked = join(cache, 'kernwatt');
  writeFileSync(blocked, '');
  const { code, out } = await calibrate(cache);
  expect(code).toBe(0);
  expect(out).toMatch(/^kept nowhere\nnot cached: .* cannot be written \(E[A-Z]+\)$/m);
}, 60_000);

test('a request that makes no sense', async () => {
  const emulated = await kernwatt(['calibrate', '--backend', 'emu']);
  expect(emulated.code).toBe(2);
  expect(emulated.err).toContain('auto, cpu, cuda');
});
