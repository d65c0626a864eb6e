// rope: what it is for (products of turned rows depend on distances), hand-worked values, published formulas of the scalings
// computed here from their statements, and what it refuses.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, type Device, openDevice, rope, type Tensor } from '../../src/index.js';
import { close } from './attention.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());
/** One row of 1, 0 pairs turned: cosines and sines of its angles. */
async function angles(backend: Backend, dim: number, position: number, params: object = {}) {
  const half = dim / 2;
  const x = device.tensor(
    Array.from({ length: dim }, (_, i) => (i < half ? 1 : 0)),
    [1, 1, 1, dim],
  );
  const y = await list(rope({ x, position, ...params }, { backend }).y);
  return { cos: y.slice(0, half), sin: y.slice(half) };
}

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test('turns as worked by hand', async () => {
    // theta 100 and four columns: frequencies 1 and 0.1. At position 2 the pairs turn by 2 and 0.2 radians.
    const x = device.tensor([1, 2, 3, 4], [1, 1, 1, 4]);
    const [c, s, d, t] = [Math.cos(2), Math.sin(2), Math.cos(0.2), Math.sin(0.2)];
    const halves = await list(rope({ x, position: 2, theta: 100 }, { backend }).y);
    close(halves, [c - 3 * s, 2 * d - 4 * t, 3 * c + s, 4 * d + 2 * t], 1e-6);
    const pairs = await list(rope({ x, position: 2, theta: 100, interleaved: true }, { backend }).y);
    close(pairs, [c - 2 * s, 2 * c + s, 3 * d - 4 * t, 4 * d + 3 * t], 1e-6);
    const part = await list(rope({ x, position: 2, theta: 100, dimRotary: 2 }, { backend }).y);
    close(part, [c - 2 * s, 2 * c + s, 3, 4], 1e-6);
  });

  test('loses nothing at positions of a million and more', async () => {
    for (const position of [1_000_000, 123_456_789, -987_654_321]) {
      const { cos, sin } = await angles(backend, 128, position, { theta: 500000 });
      for (let j = 0; j < 64; ++j) {
        const angle = position * 500000 ** (-j / 64);
        // A double itself is off by 2^-53 of the angle and of the frequency.
        const error = 2e-7 + Math.abs(angle) * 2 ** -50;
        expect(Math.abs(cos[j]! - Math.cos(angle))).toBeLessThan(error);
        expect(Math.abs(sin[j]! - Math.sin(angle))).toBeLessThan(error);
      }
    }
  });

  test('linear scaling is a position divided', async () => {
    const scaled = await angles(backend, 64, 96, { scaling: 'linear', factor: 8 });
    expect(scaled).toEqual(await angles(backend, 64, 12));
  });

  test('Llama 3: high frequencies stay, low ones are divided, those between are a mixture', async () => {
    // The values of Llama 3.1: base 500000, factor 8, wavelengths from 2048 to 8192.
    const params = { scaling: 'llama3', factor: 8, theta: 500000, originalContext: 8192 };
    const { cos, sin } = await angles(backend, 128, 1000, params);
    const kinds = { kept: 0, divided: 0, mixed: 0 };
    for (let j = 0; j < 64; ++j) {
      const f = 500000 ** (-j / 64);
      const wavelength = (2 * Math.PI) / f;
      let g: number;
      if (wavelength < 2048) {
        ++kinds.kept;
        g = f;
      } else if (wavelength > 8192) {
        ++kinds.divided;
        g = f / 8;
      } else {
        ++kinds.mixed;
        const smooth = (8192 / wavelength - 1) / 3;
        g = (1 - smooth) * (f / 8) + smooth * f;
      }
      expect(Math.hypot(cos[j]! - Math.cos(1000 * g), sin[j]! - Math.sin(1000 * g))).toBeLessThan(3e-7);
    }
    expect(Object.values(kinds).every((count) => count > 3)).toBe(true);
  });

  test('YaRN: a ramp between two pairs, and a factor on the result', async () => {
    // The values of DeepSeek V3: base 10000, 64 columns, factor 40 of 4096 tokens; the ramp goes from pair 10 to pair 23.
    const params = { scaling: 'yarn', factor: 40, originalContext: 4096 };
    const found = await angles(backend, 64, 777, params);
    const pairOf = (turns: number) => (64 * Math.log(4096 / (2 * Math.PI * turns))) / (2 * Math.log(10000));
    expect([Math.floor(pairOf(32)), Math.ceil(pairOf(1))]).toEqual([10, 23]);
    const m = 0.1 * Math.log(40) + 1;
    for (let j = 0; j < 32; ++j) {
      const f = 10000 ** (-j / 32);
      const ramp = Math.min(Math.max((j - 10) / 13, 0), 1);
      const angle = 777 * ((f / 40) * ramp + f * (1 - ramp));
      expect(Math.hypot(found.cos[j]! - m * Math.cos(angle), found.sin[j]! - m * Math.sin(angle))).toBeLessThan(5e-7);
    }
    const given = await angles(backend, 64, 0, { ...params, attentionFactor: 1.5 });
    expect(given.cos.every((c) => c === 1.5) && given.sin.every((s) => s === 0)).toBe(true);
  });
});

describe('identities', () => {
  const shape = [2, 5, 3, 64];
  const random = (seed: number, dtype: 'f32' | 'bf16' = 'f32') => device.random(shape, dtype, { seed });
  const rows = (values: readonly number[]) =>
    Array.from({ length: values.length / 64 }, (_, i) => values.slice(64 * i, 64 * i + 64));
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);

  test('position 0 changes nothing, to the bit; -p takes back what p did', async () => {
    const x = random(1, 'bf16');
    expect(await rope({ x: x.slice([null, [0, 1]]) }).y.read({ raw: true })).toEqual(
      await x
        .slice([null, [0, 1]])
        .contiguous()
        .read({ raw: true }),
    );
    const positions = device.tensor(
      Int32Array.from({ length: 10 }, (_, i) => 100_000 * i - 7),
      [2, 5],
    );
    const back = device.tensor(
      Int32Array.from({ length: 10 }, (_, i) => 7 - 100_000 * i),
      [2, 5],
    );
    const once = rope({ x: random(2), positions }).y;
    close(await list(rope({ x: once, positions: back }).y), await list(random(2)), 1e-6);
  });

  test('lengths stay, and products depend on distances alone', async () => {
    const [q, k] = [random(3), random(4)];
    const before = rows(await list(q));
    const turned = rows(await list(rope({ x: q, position: 12_345 }).y));
    close(
      turned.map((row) => dot(row, row)),
      before.map((row) => dot(row, row)),
      1e-6,
    );
    const products = async (shift: number) => {
      const a = rows(await list(rope({ x: q, position: 11 + shift }).y));
      const b = rows(await list(rope({ x: k, position: 4 + shift }).y));
      return a.map((row, i) => dot(row, b[i]!));
    };
    close(await products(1_000_000), await products(0), 3e-6);
  });

  test('neighbours are halves in another order of the columns', async () => {
    const values = rows(await list(random(5)));
    const apart = (row: readonly number[]) =>
      Array.from({ length: 64 }, (_, i) => row[i < 32 ? 2 * i : 2 * (i - 32) + 1]!);
    const pairs = rows(await list(rope({ x: random(5), position: 9, interleaved: true }).y)).flatMap(apart);
    const halves = rope({ x: device.tensor(values.flatMap(apart), shape), position: 9 }).y;
    close(await list(halves), pairs, 1e-7);
  });

  test('positions of a tensor and of a start, in place and apart, any number of threads: the same bits', async () => {
    await using one = await openDevice('cpu', { threads: 1 });
    await using three = await openDevice('cpu', { threads: 3 });
    const run = async (on: Device, mode: 'start' | 'tensor' | 'place') => {
      const x = on.random([2, 70, 9, 64], 'bf16', { seed: 6 });
      const positions = on.tensor(
        Int32Array.from({ length: 140 }, (_, i) => 31 + (i % 70)),
        [2, 70],
      );
      const at = mode === 'start' ? { position: 31 } : { positions };
      return rope({ x, ...at, ...(mode === 'place' ? { y: x } : {}) }).y.read({ raw: true });
    };
    const expected = await run(one, 'start');
    for (const on of [one, three, device])
      for (const mode of ['start', 'tensor', 'place'] as const) expect(await run(on, mode)).toEqual(expected);
  });
});

describe('refused before the launch:', () => {
  const call = (args: Record<string, unknown>) => () => rope.run({ x: device.zeros([1, 2, 3, 64]), ...args });
  const refused = (code: string, message: string) =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `rope: ${message}` });

  test.each<[Record<string, unknown>, string, string]>([
    [{ dimRotary: 66 }, 'SHAPE', 'dimRotary is 66, expected at most dim 64'],
    [{ dimRotary: 7 }, 'ARGUMENT', 'dimRotary is 7, expected an even number'],
    [{ theta: 0 }, 'ARGUMENT', 'theta is 0, expected a number above 0'],
    [{ factor: -1 }, 'ARGUMENT', 'factor is -1, expected a number above 0'],
    [
      { scaling: 'llama3', lowFreqFactor: 4 },
      'ARGUMENT',
      'lowFreqFactor is 4, expected above 0 and below highFreqFactor 4',
    ],
    [{ scaling: 'yarn', betaFast: 1 }, 'ARGUMENT', 'betaFast is 1, expected above betaSlow 1'],
    [{ attentionFactor: 2 }, 'ARGUMENT', 'attentionFactor is given with scaling none, expected it with yarn alone'],
    [{ scaling: 'ntk' }, 'ARGUMENT', 'scaling is "ntk", expected one of none, linear, llama3, yarn'],
  ])('%o', (args, code, message) => {
    expect(call(args)).toThrow(refused(code, message));
  });

  test('tensors that do not fit', () => {
    expect(call({})).not.toThrow();
    const positions = device.tensor(new Int32Array(2), [1, 2]);
    expect(call({ positions, position: 1 })).toThrow(
      refused('ARGUMENT', 'position is 1, expected 0 or none beside positions'),
    );
    expect(call({ positions: device.zeros([1, 2]) })).toThrow(refused('DTYPE', 'positions is f32, expected i32'));
    expect(call({ x: device.zeros([1, 2, 3, 7]) })).toThrow(
      refused('SHAPE', 'dim is 7, expected an even number, or an even dimRotary'),
    );
    expect(call({ x: device.zeros([1, 2, 3, 64], 'f8e4m3') })).toThrow(
      refused('DTYPE', 'x is f8e4m3, expected f32, bf16 or f16'),
    );
    const x = device.zeros([1, 3, 3, 64]);
    expect(call({ x: x.slice([null, [0, 2]]), y: x.slice([null, [1, 3]]) })).toThrow(
      refused('ARGUMENT', 'y overlaps x in memory, expected separate tensors or exactly the same view as x'),
    );
  });
});

test('work counts 6 for each pair, and x and y once', () => {
  using plan = rope.bind({ x: device.zeros([2, 5, 3, 64], 'bf16'), dimRotary: 32 });
  expect(plan.work).toEqual({ flops: 3 * 30 * 32, bytes: 2 * 2 * 30 * 64, tokens: 10, params: null });
});
