// Seeded fills: their distributions, that they are the same everywhere, and that tensors remember them.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Device, gemm, openDevice, type Tensor } from '../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });
const list = async (t: Tensor) => Array.from(await t.read());

const moments = (values: ArrayLike<number>) => {
  const all = Array.from(values);
  const mean = all.reduce((a, b) => a + b, 0) / all.length;
  return { mean, sd: Math.sqrt(all.reduce((a, b) => a + (b - mean) ** 2, 0) / all.length), all };
};

test('normal numbers have the mean and deviation asked for', async () => {
  const { mean, sd, all } = moments(await device.random([100_000], 'f32', { seed: 1, mean: 2, sd: 3 }).read());
  expect(Math.abs(mean - 2)).toBeLessThan(5 * (3 / Math.sqrt(1e5)));
  expect(Math.abs(sd - 3)).toBeLessThan(5 * (3 / Math.sqrt(2e5)));
  expect(all.filter((v) => Math.abs(v - 2) < 3).length / 1e5).toBeCloseTo(0.6827, 1);
});

test('uniform numbers fill their interval', async () => {
  const options = { distribution: 'uniform', seed: 2, low: -1, high: 3 } as const;
  const { mean, all } = moments(await device.random([100_000], 'f32', options).read());
  expect(Math.abs(mean - 1)).toBeLessThan(0.02);
  expect(Math.min(...all.slice(0, 1e4))).toBeGreaterThanOrEqual(-1);
  expect(Math.max(...all.slice(0, 1e4))).toBeLessThanOrEqual(3);
});

test('integers include both bounds and nothing else', async () => {
  const t = device.random([10_000], 'bf16', { distribution: 'integers', seed: 3, low: -4, high: 4 });
  expect(new Set(await list(t))).toEqual(new Set([-4, -3, -2, -1, 0, 1, 2, 3, 4]));
  expect(await list(device.random([100], 'i8', { distribution: 'integers', low: 5, high: 5 }))).toEqual(
    Array(100).fill(5),
  );
});

test('an element depends on seed and position alone', async () => {
  const a = await list(device.random([50, 40], 'f32', { seed: 7 }));
  expect(await list(device.random([2000], 'f32', { seed: 7 }))).toEqual(a);
  expect((await list(device.random([4000], 'f32', { seed: 7 }))).slice(0, 2000)).toEqual(a);
  await using one = await openDevice('cpu', { threads: 1, isa: 'generic' });
  expect(await list(one.random([50, 40], 'f32', { seed: 7 }))).toEqual(a);
  const b = await list(device.random([2000], 'f32', { seed: 8 }));
  expect(b.filter((v, i) => v === a[i]).length).toBeLessThan(5);
});

test('the tensor remembers its distribution and seed', () => {
  expect(device.random([2]).origin).toEqual({ distribution: 'normal', seed: 0, parameters: { mean: 0, sd: 1 } });
  expect(device.random([2], 'f32', { distribution: 'integers', seed: 5 }).slice([[0, 1]]).origin).toEqual({
    distribution: 'integers',
    seed: 5,
    parameters: { low: -4, high: 4 },
  });
  expect(device.full([2], 3).origin).toEqual({ distribution: 'constant', parameters: { value: 3 } });
  expect(device.tensor([1]).origin).toEqual({ distribution: 'data' });
  expect(device.empty([1]).origin).toBeUndefined();
  const x = device.random([2, 2], 'f32', { seed: 9 });
  expect(device.empty([2, 2]).copyFrom(x).origin).toEqual(x.origin);
  expect(x.permute([1, 0]).contiguous().origin).toEqual(x.origin);
  expect(gemm({ x, w: x }).y.origin).toBeUndefined();
  const reused = device.zeros([2, 2]);
  gemm({ x, w: x, y: reused });
  expect(reused.origin).toBeUndefined();
  expect(x.write([1, 2, 3, 4]).origin).toEqual({ distribution: 'data' });
});

test('constants, NaN and infinity included', async () => {
  expect(await list(device.full([2], Number.NaN, 'bf16'))).toEqual([Number.NaN, Number.NaN]);
  expect(await list(device.full([1], Number.NEGATIVE_INFINITY, 'f16'))).toEqual([Number.NEGATIVE_INFINITY]);
  expect(await list(device.full([2], -7, 'i32'))).toEqual([-7, -7]);
  expect(await list(device.zeros([3], 'f16'))).toEqual([0, 0, 0]);
});

test('parameters that make no sense are refused', () => {
  const bad = [
    [{ distribution: 'poisson' }, 'random: distribution is poisson, expected normal, uniform, integers'],
    [{ sd: Number.NaN }, 'random: sd is NaN, expected a finite number'],
    [{ distribution: 'uniform', low: 2, high: 1 }, 'random: low is 2, expected at most high (1)'],
    [{ low: 2 }, 'random: low is not an option of normal, expected mean or sd'],
    [
      { distribution: 'integers', low: 0.5 },
      'random: low is 0.5, expected a whole number from -9007199254740991 to 9007199254740991 for f32',
    ],
    [{ seed: -1 }, 'random: seed is -1, expected a whole number from 0 to 2^53 - 1'],
  ] as const;
  for (const [options, message] of bad)
    expect(() => device.random([2], 'f32', options as never)).toThrow(refused('ARGUMENT', message));
  expect(() => device.random([2], 'i8')).toThrow(
    refused('ARGUMENT', 'random: distribution is normal, expected integers for i8'),
  );
  expect(() => device.random([2], 'i8', { distribution: 'integers', high: 128 })).toThrow(
    refused('ARGUMENT', 'random: high is 128, expected a whole number from -128 to 127 for i8'),
  );
  expect(() => device.full([2], 1.5, 'i32')).toThrow(
    refused('ARGUMENT', 'full: value is 1.5, expected a whole number from -2147483648 to 2147483647 for i32'),
  );
});
