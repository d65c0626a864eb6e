// Pools under way: the queue and its end, aborts at every stage, failures, closing.
import { getEventListeners, once } from 'node:events';
import { resolve } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, type Device, gemm, openDevice, type PoolOptions } from '../src/index.js';
import { native } from '../src/native.js';
import { Lane } from '../src/pool/lane.js';
import { fakeLibrary } from './native/raw.js';
import { answer, input, k, living, makeSmall, makeWide, n, refused, weights, wide, wideAnswer, wideX } from './pool.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu', { threads: 2 });
});
afterAll(() => device.close());

const make = (options: PoolOptions = {}) => makeSmall(device, options);
const large = (options: PoolOptions = {}) => makeWide(device, options);

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
    const before = (await living(device)).plans;
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
    ['large', large, () => ({ x: wideX }), {}],
    ['for tensors', make, () => ({ x: input(8) }), { as: 'tensor' }],
  ] as const)(
    'of a %s request that runs rejects at once; the slot is free when the work has ended',
    async (_, pooled, inputs, options) => {
      const before = await living(device);
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
      expect(await living(device)).toMatchObject({ buffers: before.buffers, plans: before.plans, pending: 0 });
    },
  );

  test('between the pieces of an upload launches nothing', async () => {
    await using pool = large({ slots: 1 });
    await pool.run({ x: wideX });
    const launches = (await living(device)).plans;
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
    const before = await living(device);
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
    expect(await living(device)).toEqual(before);
  });

  test('with large requests and an abort in flight', async () => {
    const before = await living(device);
    const pool = large({ slots: 2 });
    const controller = new AbortController();
    const taken = [0, 1, 2].map(() => pool.run({ x: wideX }));
    const aborted = pool.run({ x: wideX }, { signal: controller.signal });
    const closing = pool.close();
    controller.abort();
    await expect(aborted).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    await closing;
    for (const { y } of await Promise.all(taken)) expect(y).toEqual(wideAnswer);
    expect(await living(device)).toEqual(before);
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
