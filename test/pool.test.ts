// Pools: what requests may be, their answers, and what capacities are refused.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, type Device, gemm, openDevice, ops, type PoolOptions, type Tensor } from '../src/index.js';
import {
  answer,
  input,
  integers,
  k,
  living,
  makeSmall,
  makeWide,
  n,
  product,
  refused,
  weights,
  wide,
  wideAnswer,
  wideX,
} from './pool.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu', { threads: 2 });
});
afterAll(() => device.close());

const make = (options: PoolOptions = {}) => makeSmall(device, options);
const large = (options: PoolOptions = {}) => makeWide(device, options);

describe('a request', () => {
  test('may have any size up to the capacity, and gets its own answer', async () => {
    await using pool = make({ slots: 3 });
    const sizes = [1, 8, 3, 5, 0, 8, 2, 1, 7, 4, 6, 8, 3];
    const results = await Promise.all(sizes.map((m) => pool.run({ x: input(m) })));
    expect(results.map(({ y }) => y)).toEqual(sizes.map((m) => answer(input(m))));
    expect([pool.running, pool.waiting]).toEqual([0, 0]);
  });

  test('may be too large to copy on the spot', async () => {
    await using pool = large({ slots: 2 });
    const small = wideX.slice(0, wide.k);
    const results = await Promise.all([wideX, small, wideX].map((x) => pool.run({ x })));
    expect(results.map(({ y }) => y)).toEqual([wideAnswer, wideAnswer.slice(0, wide.n), wideAnswer]);
  });

  test('says its shape where more than one size is open, or a dimension may be absent', async () => {
    await using pool = gemm.pool({ m: 8, k, rowsW: n }, { device });
    const inputs = { x: { data: input(2), shape: [1, 2, k] }, w: { data: weights.slice(0, 3 * k), shape: [3, k] } };
    expect((await pool.run(inputs)).y).toEqual(product(input(2), weights.slice(0, 3 * k), k));
    await expect(pool.run({ x: input(2), w: weights })).rejects.toThrow(
      refused(
        'SHAPE',
        'gemm.pool: x comes without a shape, expected { data, shape } as several sizes of [m, k] may differ',
      ),
    );
  });

  test('may bring plain numbers, f64 and stored bits; results are widened, raw, or tensors', async () => {
    using w = device.tensor(weights, [n, k], 'bf16');
    await using pool = gemm.pool({ m: 4, w });
    const x = input(3);
    const bits = Uint16Array.from(new Uint32Array(x.buffer), (b) => b >>> 16);
    for (const data of [x, Array.from(x), Float64Array.from(x), bits])
      expect((await pool.run({ x: data })).y).toEqual(answer(x));
    const { y: raw } = await pool.run({ x }, { as: 'raw' });
    expect(raw).toEqual(Uint16Array.from(new Uint32Array(answer(x).buffer), (b) => b >>> 16));
    const { y } = await pool.run({ x }, { as: 'tensor' });
    expect([y.dtype, y.shape]).toEqual(['bf16', [3, n]]);
    expect(await y.read()).toEqual(answer(x));
    y.dispose();
  });

  test('binds tensors as they are, whatever their strides, once what was queued to write them has run', async () => {
    await using pool = make({ slots: 2 });
    const stream = device.createStream();
    const base = device.random([64, 2 * k], 'f32', { distribution: 'integers', seed: 9, stream });
    using x = base.slice([
      [1, 7],
      [k, 2 * k],
    ]);
    const both = await Promise.all([pool.run({ x }), pool.run({ x: input(4) })]);
    using copy = x.contiguous();
    expect(both.map(({ y }) => y)).toEqual([answer((await copy.read()) as Float32Array), answer(input(4))]);
    base.dispose();
    await stream.close();
  });

  test('brings optional inputs that the capacity announces, or leaves them', async () => {
    using w = device.tensor(weights, [n, k]);
    await using pool = gemm.pool({ m: 4, w, bias: 'f32', activation: 'relu' });
    const bias = integers(n, 5);
    const relu = (sums: Float32Array) => sums.map((v) => Math.max(v, 0));
    const [without, by] = await Promise.all([pool.run({ x: input(2) }), pool.run({ x: input(2), bias })]);
    expect(without.y).toEqual(relu(answer(input(2))));
    expect(by.y).toEqual(relu(answer(input(2)).map((v, at) => v + bias[at % n]!)));
  });

  test('of an operator with several inputs and results', async () => {
    await using pool = attentionGqa.pool(
      { batch: 2, lenQ: 4, lenKv: 9, headsQ: 2, headsKv: 1, dim: 16, dimV: 16, lensKv: 'i32', causal: true },
      { device, slots: 2 },
    );
    const run = async (lenQ: number, lenKv: number, lens: number[]) => {
      const arrays = { q: [2, lenQ, 2, 16], k: [2, lenKv, 1, 16], v: [2, lenKv, 1, 16] };
      const data = Object.values(arrays).map((shape, i) =>
        integers(
          shape.reduce((a, b) => a * b),
          10 * lenKv + i,
        ),
      );
      const given = Object.entries(arrays).map(([name, shape], i) => [name, { data: data[i]!, shape }]);
      const results = await pool.run({
        ...(Object.fromEntries(given) as never as Given),
        lensKv: Int32Array.from(lens),
      });
      const tensors = Object.entries(arrays).map(([name, shape], i) => [name, device.tensor(data[i]!, shape)]);
      const lensKv = device.tensor(Int32Array.from(lens));
      const expected = attentionGqa({ ...(Object.fromEntries(tensors) as Tensors), lensKv, causal: true });
      expect(results.y).toEqual(await expected.y.read());
      expect(results.lse).toEqual(await expected.lse.read());
    };
    type Given = { q: { data: Float32Array; shape: number[] }; k: Given['q']; v: Given['q'] };
    type Tensors = { q: Tensor; k: Tensor; v: Tensor };
    await Promise.all([run(1, 9, [9, 3]), run(4, 5, [4, 5]), run(2, 2, [2, 2])]);
    await expect(run(1, 9, [10, 1])).rejects.toThrow(
      refused('INDEX', 'attention_gqa.pool: lensKv[0] is 10, expected 0 to 9'),
    );
    await run(3, 7, [7, 6]);
  });

  test('that is refused names what is wrong, and harms no other', async () => {
    await using pool = make({ slots: 1 });
    const gone = device.zeros([1, k]);
    gone.dispose();
    const bad = [
      [{}, 'ARGUMENT', 'x is missing, expected an array or a tensor'],
      [{ x: input(9) }, 'SHAPE', 'm is 9, expected at most 8'],
      [{ x: input(1).slice(1) }, 'SHAPE', `x has 11 elements, expected those of [m, ${k}]`],
      [{ x: { data: input(1), shape: [2, k] } }, 'SHAPE', 'x has 12 elements, expected 24 for [2, 12]'],
      [{ x: { data: input(1), shape: [k, 1] } }, 'SHAPE', 'w has k 12, but x has 1'],
      [{ x: input(1), z: 1 }, 'ARGUMENT', 'z is not an argument; expected x'],
      [{ x: input(1), w: weights }, 'ARGUMENT', 'w is fixed by the pool, expected x alone'],
      [{ x: input(1), bias: weights }, 'ARGUMENT', 'bias is not in the capacity of the pool, expected x alone'],
      [{ x: input(1), alpha: 2 }, 'ARGUMENT', 'alpha is not in the capacity of the pool, expected x alone'],
      [{ x: device.zeros([1, k], 'f16') }, 'DTYPE', 'x is f16, expected f32 as the pool'],
      [{ x: gone }, 'DISPOSED', 'x is disposed, expected a live tensor'],
      [[], 'ARGUMENT', 'inputs are a Array, expected an object of x'],
      [null, 'ARGUMENT', 'inputs are null, expected an object of x'],
    ] as const;
    for (const [inputs, code, message] of bad)
      await expect(pool.run(inputs as never)).rejects.toThrow(refused(code, `gemm.pool: ${message}`));
    await expect(pool.run({ x: 'text' as never })).rejects.toThrow(/^gemm.pool: x: data is string, expected an array/);
    await expect(pool.run({ x: input(1) }, { as: 'text' as never })).rejects.toThrow(
      refused('ARGUMENT', 'gemm.pool: as is "text", expected array, raw or tensor'),
    );
    await expect(pool.run({ x: input(1) }, { signal: 1 as never })).rejects.toThrow(
      refused('ARGUMENT', 'gemm.pool: signal is 1, expected an AbortSignal'),
    );
    await expect(pool.run({ x: input(1) }, { stream: 1 } as never)).rejects.toThrow(
      refused('ARGUMENT', 'gemm.pool: stream is not an option of run, expected signal or as'),
    );
    expect((await pool.run({ x: input(8) })).y).toEqual(answer(input(8)));
  });
});

test('dimensions, tensors and parameters of an operator have names of their own, as a capacity needs', () => {
  for (const { spec, compiled } of Object.values(ops)) {
    const dims = new Set(compiled.tensors.flatMap((t) => t.dims.map(({ name }) => name)));
    expect(
      [...dims].filter((name) => compiled.names.has(name)),
      spec.name,
    ).toEqual([]);
  }
});

test('a pool is counted in the memory of its device, and refused beyond its limit', async () => {
  await using small = await openDevice('cpu', { threads: 1, memoryLimit: 2 ** 20 });
  const w = small.tensor(weights, [n, k]);
  const before = small.memory().currentBytes;
  const pool = gemm.pool({ m: 100, w }, { slots: 3 });
  expect(pool.bytes).toBe(3 * 4 * 100 * (k + n));
  expect(small.memory().currentBytes - before).toBe(pool.bytes);
  await pool.close();
  expect(small.memory().currentBytes).toBe(before);
  expect(() => gemm.pool({ m: 10_000, w }, { slots: 3 })).toThrow(
    expect.objectContaining({ code: 'ERR_KERNWATT_OUT_OF_MEMORY' }),
  );
  expect(small.memory().currentBytes).toBe(before);
});

test('a capacity that cannot be is refused: name, what was received, what was expected', async () => {
  const before = await living(device);
  const w = device.zeros([n, k]);
  const odd = device.zeros([3, k]);
  const other = await openDevice('cpu', { threads: 1 });
  const elsewhere = other.zeros([n]);
  const bad = [
    [{ w }, {}, 'ARGUMENT', 'm is missing, expected the largest size of a request'],
    [{ m: -1, w }, {}, 'ARGUMENT', 'm is -1, expected a size of 0 or more'],
    [{ m: 'many', w }, {}, 'ARGUMENT', 'm is "many", expected a size of 0 or more'],
    [{ m: 8, w, rows: 3 }, {}, 'ARGUMENT', 'rows is not an argument; did you mean rowsW?'],
    [{ m: 8, k: 5, w }, {}, 'SHAPE', 'k is 5, expected 12 as the given tensors have'],
    [{ m: 8, k, rowsW: n }, {}, 'ARGUMENT', 'device is missing, expected one where no tensor is given'],
    [{ m: 8, w }, { device: 'cpu' }, 'ARGUMENT', 'device is "cpu", expected one from openDevice()'],
    [{ m: 8, w, bias: elsewhere }, {}, 'ARGUMENT', 'bias is on cpu, expected cpu as the pool'],
    [{ m: 8, w, y: 'f32' }, {}, 'ARGUMENT', 'y is given, expected inputs alone: the pool has its own'],
    [
      { m: 8, w, bias: 3 },
      {},
      'ARGUMENT',
      'bias is 3, expected a tensor that all requests share, or the element type of those they bring',
    ],
    [{ m: 8, w, x: 'f16' }, {}, 'DTYPE', 'w is f32, but x is f16'],
    [{ m: 8, w, activation: 'swish' }, {}, 'ARGUMENT', /^gemm.pool: activation is "swish", expected one of none, relu/],
    [{ m: 8, w: odd, activation: 'swiglu' }, {}, 'SHAPE', /^gemm.pool: w has rowsW 3, expected an even/],
    [{ m: 8, w }, { slots: 0 }, 'ARGUMENT', 'slots is 0, expected a whole number from 1 to 1024'],
    [{ m: 8, w }, { queue: 1.5 }, 'ARGUMENT', 'queue is 1.5, expected a whole number from 0 to 1048576'],
    [{ m: 8, w }, { plans: 0 }, 'ARGUMENT', 'plans is 0, expected a whole number from 1 to 65536'],
    [
      { m: 8, w },
      { slot: 3 },
      'ARGUMENT',
      'slot is not an option, expected slots, queue, device, backend, dtype, plans',
    ],
    [{ m: 8, w }, { backend: 'cuda' }, 'ARGUMENT', /backend is cuda, expected cpu or ref on cpu$/],
    [{ m: 8, w }, null, 'ARGUMENT', /^gemm.pool: options are null/],
    [{ m: 2 ** 40, w }, {}, 'OUT_OF_MEMORY', /^alloc: bytes is \d+, expected at most \d+/],
    [[], {}, 'ARGUMENT', 'capacity is a Array, expected an object'],
  ] as const;
  for (const [capacity, options, code, message] of bad) {
    const matcher = typeof message === 'string' ? `gemm.pool: ${message}` : expect.stringMatching(message);
    expect(() => gemm.pool(capacity as never, options as never), String(message)).toThrow(refused(code, matcher));
  }
  w.dispose();
  odd.dispose();
  await other.close();
  expect(await living(device)).toMatchObject({ buffers: before.buffers, streams: before.streams });
});
