// Pools: answers, sizes, the queue and its end, aborts at every stage, failures, closing.
import { getEventListeners, once } from 'node:events';
import { resolve } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, type Device, gemm, openDevice, ops, type PoolOptions, type Tensor } from '../src/index.js';
import { native } from '../src/native.js';
import { Lane } from '../src/pool/lane.js';
import { randomSource } from '../src/random.js';
import { collect, fakeLibrary } from './native/raw.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu', { threads: 2 });
});
afterAll(() => device.close());

const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });
const [k, n] = [12, 10];
const integers = (size: number, seed: number) => {
  const next = randomSource(seed);
  return Float32Array.from({ length: size }, () => Math.floor(next() * 9) - 4);
};
/** y = x Wᵀ in whole numbers, exact in every type. */
const product = (x: Float32Array, w: Float32Array, depth: number) => {
  const [rows, columns] = [x.length / depth, w.length / depth];
  return Float32Array.from({ length: rows * columns }, (_, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    for (let i = 0; i < depth; ++i) sum += x[row * depth + i]! * w[column * depth + i]!;
    return sum;
  });
};

const weights = integers(n * k, 1);
/** A pool for `m` rows of a product with one weight, which the caller gives up. */
const make = (options: PoolOptions = {}, m = 8) => {
  using w = device.tensor(weights, [n, k]);
  return gemm.pool({ m, w }, options);
};
const input = (m: number, seed = m) => integers(m * k, seed);
const answer = (x: Float32Array) => product(x, weights, k);

/** Native objects alive, once what earlier tests dropped is collected. */
const living = async () => {
  await device.stream.mark();
  await collect();
  return native().counters();
};

/** Large enough to go the way of large requests, and to be uploaded in more than one turn. */
const wide = { k: 4096, n: 2, m: 100 };
const wideWeights = integers(wide.n * wide.k, 2);
const wideX = integers(wide.m * wide.k, 3);
const makeWide = (options: PoolOptions = {}) => {
  using w = device.tensor(wideWeights, [wide.n, wide.k]);
  return gemm.pool({ m: wide.m, w }, options);
};
const wideAnswer = product(wideX, wideWeights, wide.k);

describe('a request', () => {
  test('may have any size up to the capacity, and gets its own answer', async () => {
    await using pool = make({ slots: 3 });
    const sizes = [1, 8, 3, 5, 0, 8, 2, 1, 7, 4, 6, 8, 3];
    const results = await Promise.all(sizes.map((m) => pool.run({ x: input(m) })));
    expect(results.map(({ y }) => y)).toEqual(sizes.map((m) => answer(input(m))));
    expect([pool.running, pool.waiting]).toEqual([0, 0]);
  });

  test('may be too large to copy on the spot', async () => {
    await using pool = makeWide({ slots: 2 });
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

describe('the queue', () => {
  test('answers BUSY at once when it is full, and serves everyone it took', async () => {
    await using pool = make({ slots: 2, queue: 3 });
    const taken = [1, 2, 3, 4, 5].map((m) => pool.run({ x: input(m) }));
    expect([pool.running, pool.waiting]).toEqual([2, 3]);
    const late = pool.run({ x: input(1) });
    const failed = late.then(
      () => 'answered',
      (error) => error,
    );
    // Turned away before any slot could have become free.
    const first = await Promise.race([failed, turn('later')]);
    expect(first).toEqual(
      refused(
        'BUSY',
        'gemm.pool: requests under way are 5, expected fewer than 2 slots and 3 in the queue; try again later',
      ),
    );
    expect((await Promise.all(taken)).map(({ y }) => y)).toEqual([1, 2, 3, 4, 5].map((m) => answer(input(m))));
    expect((await pool.run({ x: input(6) })).y).toEqual(answer(input(6)));
  });

  test('is first come, first served', async () => {
    await using pool = make({ slots: 1, queue: 20 });
    const order: number[] = [];
    const sizes = Array.from({ length: 20 }, (_, i) => 1 + ((i * 5) % 8));
    await Promise.all(sizes.map((m, i) => pool.run({ x: input(m) }).then(() => order.push(i))));
    expect(order).toEqual(sizes.map((_, i) => i));
  });

  test('of no length turns away whoever finds no free slot', async () => {
    await using pool = make({ slots: 1, queue: 0 });
    const one = pool.run({ x: input(1) });
    await expect(pool.run({ x: input(1) })).rejects.toThrow(expect.objectContaining({ code: 'ERR_KERNWATT_BUSY' }));
    await one;
    await pool.run({ x: input(1) });
  });

  test('refuses arrays that were detached while they waited', async () => {
    await using pool = make({ slots: 1 });
    const lost = input(3);
    const running = pool.run({ x: input(2) });
    const waiting = pool.run({ x: lost });
    structuredClone(lost.buffer, { transfer: [lost.buffer] });
    await expect(waiting).rejects.toThrow(
      refused(
        'ARGUMENT',
        'gemm.pool: x has 0 elements, expected 36 as when it was handed in; leave arrays alone until the request has settled',
      ),
    );
    expect((await running).y).toEqual(answer(input(2)));
    expect((await pool.run({ x: input(3) })).y).toEqual(answer(input(3)));
  });

  test('keeps plans for the shapes seen last, and no more', async () => {
    const before = (await living()).plans;
    await using pool = make({ slots: 1, plans: 2 });
    for (const m of [1, 2, 3, 1, 2, 3, 8]) expect((await pool.run({ x: input(m) })).y).toEqual(answer(input(m)));
    expect(native().counters().plans - before).toBe(2);
  });
});

describe('an abort', () => {
  const reason = new Error('the client went away');

  test('before the request rejects with its reason', async () => {
    await using pool = make();
    await expect(pool.run({ x: input(1) }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(pool.running).toBe(0);
  });

  test('in the queue takes the request out at once', async () => {
    await using pool = make({ slots: 1, queue: 3 });
    const controllers = [1, 2, 3].map(() => new AbortController());
    const running = pool.run({ x: input(1) });
    const queued = controllers.map(({ signal }, i) => pool.run({ x: input(i + 2) }, { signal }));
    controllers[1]!.abort(reason);
    expect(pool.waiting).toBe(2);
    await expect(queued[1]).rejects.toBe(reason);
    // Its place is free for another.
    const late = pool.run({ x: input(7) });
    const [a, b, c, d] = await Promise.all([running, queued[0]!, queued[2]!, late]);
    expect([a.y, b.y, c.y, d.y]).toEqual([1, 2, 4, 7].map((m) => answer(input(m))));
    for (const { signal } of controllers) expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  test('of everyone in the queue leaves it empty', async () => {
    await using pool = make({ slots: 1, queue: 50 });
    const controller = new AbortController();
    const { signal } = controller;
    const warnings: string[] = [];
    process.on('warning', ({ name }) => void warnings.push(name));
    const all = Array.from({ length: 51 }, () => pool.run({ x: input(1) }, { signal }));
    controller.abort(reason);
    expect([pool.running, pool.waiting]).toEqual([1, 0]);
    const results = await Promise.allSettled(all);
    expect(results.every((r) => r.status === 'rejected' && r.reason === reason)).toBe(true);
    expect(warnings).toEqual([]);
    expect((await pool.run({ x: input(2) })).y).toEqual(answer(input(2)));
  });

  test.each([
    ['small', make, () => ({ x: input(8) }), {}],
    ['large', makeWide, () => ({ x: wideX }), {}],
    ['for tensors', make, () => ({ x: input(8) }), { as: 'tensor' }],
  ] as const)(
    'of a %s request that runs rejects at once; the slot is free when the work has ended',
    async (_, pooled, inputs, options) => {
      const before = await living();
      {
        await using pool = pooled({ slots: 1 });
        const controller = new AbortController();
        const aborted = pool.run(inputs(), { ...options, signal: controller.signal });
        const next = pool.run(inputs());
        controller.abort(reason);
        expect([pool.running, pool.waiting]).toEqual([1, 1]);
        await expect(aborted).rejects.toBe(reason);
        expect((await next).y).toEqual(pooled === make ? answer(input(8)) : wideAnswer);
        expect(pool.running).toBe(0);
      }
      expect(await living()).toMatchObject({ buffers: before.buffers, plans: before.plans, pending: 0 });
    },
  );

  test('between the pieces of an upload launches nothing', async () => {
    await using pool = makeWide({ slots: 1 });
    await pool.run({ x: wideX });
    const launches = native().counters().plans;
    const controller = new AbortController();
    const aborted = pool.run({ x: wideX.subarray(wide.k) }, { signal: controller.signal });
    await Promise.resolve();
    controller.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    while (pool.running > 0) await turn();
    // A launch would have bound a plan of another shape.
    expect(native().counters().plans).toBe(launches);
    expect((await pool.run({ x: wideX })).y).toEqual(wideAnswer);
  });

  test('of a request that has settled changes nothing', async () => {
    await using pool = make();
    const controller = new AbortController();
    const { y } = await pool.run({ x: input(1) }, { signal: controller.signal });
    controller.abort(reason);
    expect(y).toEqual(answer(input(1)));
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });
});

describe('failures', () => {
  test('of the work itself reach their own request, and the slot serves the next', async () => {
    const lens = { batch: 1, lenQ: 1, lenKv: 4, headsQ: 1, headsKv: 1, dim: 8, dimV: 8, lensKv: 'i32' } as const;
    await using pool = attentionGqa.pool(lens, { device, slots: 1 });
    const one = { data: new Float32Array(8).fill(1), shape: [1, 1, 1, 8] };
    const many = { data: new Float32Array(32).fill(1), shape: [1, 4, 1, 8] };
    // Whole numbers that an operator wrote are known to the device alone.
    const wrong = device.empty([1], 'i32').copyFrom(device.full([1], 9, 'i32'));
    const results = await Promise.allSettled([
      pool.run({ q: one, k: many, v: many }),
      pool.run({ q: one, k: many, v: many, lensKv: wrong }),
      pool.run({ q: one, k: many, v: many }),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect((results[1] as PromiseRejectedResult).reason).toMatchObject({ code: 'ERR_KERNWATT_INDEX' });
  });

  test('among requests that are waited for together are sorted out one by one', async () => {
    const bad = new Error('the third');
    let failing = false;
    const stream = {
      mark: async () => {
        if (!failing) return;
        failing = false;
        throw bad;
      },
    };
    const said: string[] = [];
    const lane = new Lane(stream as never);
    const add = (name: string, works: boolean) => {
      const plan = {
        enqueue() {
          if (!works) failing = true;
        },
      };
      plan.enqueue();
      lane.add({
        plan: plan as never,
        ended: () => void said.push(`${name} ended`),
        failed: (error) => void said.push(`${name} failed: ${(error as Error).message}`),
      });
    };
    for (const name of ['a', 'b', 'c', 'd']) add(name, name !== 'c');
    while (said.length < 4) await turn();
    expect(said).toEqual(['a ended', 'b ended', 'c failed: the third', 'd ended']);
    add('e', false);
    while (said.length < 5) await turn();
    expect(said.at(-1)).toBe('e failed: the third');
  });

  test('of a library: those that run fail by themselves, and when the device is lost all do', async () => {
    // The library's gemm gives alpha x; alpha -2 fails when it runs, -3 loses the device; beta is how many milliseconds it takes.
    const lib = await openDevice('cuda', { library: fakeLibrary('sm90') });
    using w = lib.zeros([3, 3]);
    using c = lib.zeros([3, 3]);
    const square = { m: 3, w, c };
    const x = { x: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9) };
    const three = async (alpha: number) => {
      await using pool = gemm.pool({ ...square, alpha, beta: 5 }, { slots: 2 });
      const results = await Promise.allSettled([pool.run(x), pool.run(x), pool.run(x)]);
      return results.map((r) => (r.status === 'rejected' ? r.reason.code : (r.value as { y: Float32Array }).y));
    };
    const doubled = x.x.map((v) => 2 * v);
    expect(await three(2)).toEqual([doubled, doubled, doubled]);
    expect(await three(-2)).toEqual(Array(3).fill('ERR_KERNWATT_CUDA'));
    expect(await three(2)).toEqual([doubled, doubled, doubled]);
    expect(await three(-3)).toEqual(Array(3).fill('ERR_KERNWATT_DEVICE_LOST'));
    await lib.close();
  });

  test('of a device that closes reject what it still had to do', async () => {
    const other = await openDevice('cpu', { threads: 1 });
    const w = other.tensor(weights, [n, k]);
    const pool = gemm.pool({ m: 8, w }, { slots: 1, queue: 2000 });
    const all = Promise.allSettled(Array.from({ length: 2000 }, () => pool.run({ x: input(1) })));
    await other.close();
    const results = await all;
    const codes = results.map((r) => (r.status === 'rejected' ? r.reason.code : 'fulfilled'));
    expect(new Set(codes)).toEqual(new Set(['ERR_KERNWATT_DISPOSED']));
    await pool.close();
  });
});

describe('closing', () => {
  test('finishes what was taken, refuses what comes, and leaves nothing behind', async () => {
    const before = await living();
    const pool = make({ slots: 2 });
    const taken = [1, 2, 3, 4, 5].map((m) => pool.run({ x: input(m) }));
    const closing = pool.close();
    expect(pool.closed).toBe(true);
    await expect(pool.run({ x: input(1) })).rejects.toThrow(
      refused('DISPOSED', 'gemm.pool: pool is closed, expected an open one'),
    );
    expect(pool.close()).toBe(closing);
    await closing;
    expect((await Promise.all(taken)).map(({ y }) => y)).toEqual([1, 2, 3, 4, 5].map((m) => answer(input(m))));
    await pool.close();
    expect(await living()).toEqual(before);
  });

  test('with large requests and an abort in flight', async () => {
    const before = await living();
    const pool = makeWide({ slots: 2 });
    const controller = new AbortController();
    const taken = [0, 1, 2].map(() => pool.run({ x: wideX }));
    const aborted = pool.run({ x: wideX }, { signal: controller.signal });
    const closing = pool.close();
    controller.abort();
    await expect(aborted).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    await closing;
    for (const { y } of await Promise.all(taken)) expect(y).toEqual(wideAnswer);
    expect(await living()).toEqual(before);
  });
});

test('a worker may be terminated with requests in flight', async () => {
  const code = `import { gemm, openDevice } from ${JSON.stringify(pathToFileURL(resolve('dist/index.js')).href)};
    import { parentPort } from 'node:worker_threads';
    const device = await openDevice('cpu', { threads: 2 });
    const pool = gemm.pool({ m: 64, w: device.random([512, 512]) }, { slots: 4 });
    const client = async (m) => { for (;;) await pool.run({ x: new Float32Array(m * 512) }); };
    for (const m of [1, 2, 64, 64, 3, 64]) client(m);
    setTimeout(() => parentPort.postMessage('under way'), 30);`;
  for (let i = 0; i < 3; ++i) {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
    await once(worker, 'message');
    expect(await worker.terminate()).toBe(1);
  }
  await using pool = make();
  expect((await pool.run({ x: input(3) })).y).toEqual(answer(input(3)));
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

test('a capacity that cannot be is refused: name, what was received, what was expected', async () => {
  const before = await living();
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
    [{ m: 2 ** 40, w }, {}, 'OUT_OF_MEMORY', /^gemm.pool: capacity needs \d+ bytes at once/],
    [[], {}, 'ARGUMENT', 'capacity is a Array, expected an object'],
  ] as const;
  for (const [capacity, options, code, message] of bad) {
    const matcher = typeof message === 'string' ? `gemm.pool: ${message}` : expect.stringMatching(message);
    expect(() => gemm.pool(capacity as never, options as never), String(message)).toThrow(refused(code, matcher));
  }
  w.dispose();
  odd.dispose();
  await other.close();
  expect(await living()).toMatchObject({ buffers: before.buffers, streams: before.streams });
});
