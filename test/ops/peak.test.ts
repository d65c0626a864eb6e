// peak: what comparison with the definition cannot show. Rounds cancel in pairs, however many; what it refuses; the work it states.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, type Device, openDevice, peak, type Tensor } from '../../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());
const whole = (shape: number[], seed: number, dtype: 'f32' | 'f16' | 'bf16' = 'f32') =>
  device.random(shape, dtype, { distribution: 'integers', low: -255, high: 255, seed });

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test('computes what its page says', async () => {
    const x = device.tensor([1, 2, 3, -4, 5, 6], [2, 3]);
    const w = device.tensor([1, 0, 2, 3, 1, -1], [2, 3]);
    expect(await list(peak({ x }, { backend }).y)).toEqual([6, 7]);
    expect(await list(peak({ x, load: 'copy' }, { backend }).y)).toEqual([1, 2, 3, -4, 5, 6]);
    for (const load of ['multiply', 'spin'] as const) {
      expect(await list(peak({ x, w, load }, { backend }).y)).toEqual([7, 2, 8, -13]);
      expect(await list(peak({ x, w, load, rounds: 2 }, { backend }).y)).toEqual([0, 0, 0, 0]);
    }
  });
});

describe.each(['f32', 'f16', 'bf16'] as const)('%s', (dtype) => {
  test('a hundred thousand rounds leave the result of one, to the bit', async () => {
    const columns = dtype === 'f32' ? 1 : 16;
    const [x, w] = [whole([30, columns], 1, dtype), whole([200, columns], 2, dtype)];
    for (const load of ['multiply', 'spin'] as const) {
      const once = await list(peak({ x, w, load }).y);
      expect(once.some((value) => value !== 0)).toBe(true);
      expect(await list(peak({ x, w, load, rounds: load === 'spin' ? 101 : 100_001 }).y)).toEqual(once);
    }
    expect(new Set(await list(peak({ x, w, load: 'multiply', rounds: 100_000 }).y))).toEqual(new Set([0]));
  });
});

test('numbers that round settle within one rounding of the result, and stay there', async () => {
  const [x, w] = [device.random([24, 1], 'f32', { seed: 1 }), device.random([192, 1], 'f32', { seed: 2 })];
  const [once, often] = await Promise.all(
    [1, 1_000_001].map((rounds) => list(peak({ x, w, load: 'multiply', rounds }).y)),
  );
  const off = once!.map((value, i) => Math.abs(often![i]! - value) / Math.max(Math.abs(value), 1e-30));
  expect(Math.max(...off)).toBeLessThanOrEqual(2 ** -22);
});

describe('refused before the launch:', () => {
  const zeros = (...shape: number[]) => device.zeros(shape);
  const call = (args: Record<string, unknown>) => () => peak.run({ x: zeros(4, 8), ...args });
  const refused = (code: string, message: string) =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `peak: ${message}` });

  test('operands and rounds that the load does not have', () => {
    expect(call({})).not.toThrow();
    expect(call({ load: 'multiply' })).toThrow(
      refused('ARGUMENT', 'w is missing, expected a tensor with load multiply'),
    );
    expect(call({ w: zeros(2, 8) })).toThrow(refused('ARGUMENT', 'w is given, expected none with load read'));
    expect(call({ load: 'copy', rounds: 3 })).toThrow(refused('ARGUMENT', 'rounds is 3, expected 1 with load copy'));
    expect(call({ load: 'spin', w: zeros(2, 8), rounds: 0 })).toThrow(
      refused('ARGUMENT', 'rounds is 0, expected a whole number from 1 to 2147483647'),
    );
  });

  test('sizes and element types', () => {
    expect(call({ load: 'multiply', w: zeros(2, 7) })).toThrow(refused('SHAPE', 'w has columns 7, but x has 8'));
    expect(call({ load: 'multiply', x: zeros(4, 17), w: zeros(2, 17) })).toThrow(
      refused('SHAPE', 'x has columns 17, expected at most 16 with load multiply'),
    );
    expect(call({ y: zeros(4, 8) })).toThrow(refused('SHAPE', 'y has outputs 8, expected 1'));
    expect(call({ load: 'multiply', w: device.zeros([2, 8], 'f16') })).toThrow(
      refused('DTYPE', 'w is f16, but x is f32'),
    );
  });
});

test('work counts each round, and each operand once', () => {
  const x = device.zeros([10, 16], 'bf16');
  using multiply = peak.bind({ x, w: device.zeros([20, 16], 'bf16'), load: 'multiply', rounds: 7 });
  expect(multiply.work).toEqual({
    flops: 2 * 10 * 20 * 16 * 7,
    bytes: 2 * 160 + 2 * 320 + 4 * 200,
    tokens: null,
    params: null,
  });
  using read = peak.bind({ x });
  expect(read.work).toMatchObject({ flops: 160, bytes: 2 * 160 + 40 });
  using copy = peak.bind({ x, load: 'copy' });
  expect(copy.work).toMatchObject({ flops: 0, bytes: 2 * 160 + 640 });
});

test('says which unit works', async () => {
  const units = async (isa: string) => {
    await using one = await openDevice('cpu', { isa });
    return (['f32', 'f16', 'bf16'] as const).map((dtype) => {
      const [x, w] = [one.zeros([1, 1], dtype), one.zeros([1, 1], dtype)];
      using plan = peak.bind({ x, w, load: 'multiply' });
      return plan.explain().unit;
    });
  };
  expect(await units('generic')).toEqual(['fma_f32', 'fma_f32', 'fma_f32']);
  const best = device.info.isa!;
  expect(await units(best)).toEqual(['fma_f32', 'fma_f32', /bf16$/.test(best) ? 'dot_bf16' : 'fma_f32']);
});
