// Streams and plans: order, waiting without blocking, rebinding, disposal in flight, and what a call costs in objects.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, gemm, openDevice } from '../src/index.js';
import { native } from '../src/native.js';
import { collect } from './native/raw.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });
const identity = (n: number, scale = 1) =>
  device.tensor(
    Float32Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? scale : 0)),
    [n, n],
  );

describe('streams', () => {
  test('work runs in the order in which it was queued', async () => {
    const stream = device.createStream();
    const x = device.full([1, 4], 1);
    const [double, same] = [identity(4, 2), identity(4)];
    await device.stream.mark();
    const plan = gemm.bind({ x, w: double }, { stream });
    const back = gemm.bind({ x: plan.outputs.y, w: same, y: x }, { stream });
    for (let i = 0; i < 20; ++i) {
      plan.enqueue();
      back.enqueue();
    }
    await stream.mark();
    expect(await x.read()).toEqual(new Float32Array(4).fill(2 ** 20));
    for (const p of [plan, back]) p.dispose();
    await stream.close();
  });

  test('waiting does not block the event loop', async () => {
    const x = device.random([1024, 1024]);
    const plan = gemm.bind({ x, w: x }, { backend: 'cpu' });
    for (let i = 0; i < 8; ++i) plan.enqueue();
    let finished = false;
    let turns = 0;
    const waiting = device.stream.mark().then(() => {
      finished = true;
    });
    while (!finished) {
      ++turns;
      await new Promise(setImmediate);
    }
    await waiting;
    expect(turns).toBeGreaterThan(3);
    plan.dispose();
    x.dispose();
  });

  test('syncNow waits on the spot', () => {
    const { y } = gemm({ x: device.full([2, 2], 1), w: device.full([2, 2], 1) });
    device.stream.syncNow();
    expect(native().counters().pending).toBe(0);
    y.dispose();
  });

  test('marks resolve in order', async () => {
    const order: number[] = [];
    await Promise.all([0, 1, 2, 3].map((i) => device.stream.mark().then(() => order.push(i))));
    expect(order).toEqual([0, 1, 2, 3]);
  });

  test('a closed stream is refused; closing is idempotent; the default one closes with the device', async () => {
    const stream = device.createStream();
    await stream.close();
    await stream.close();
    await expect(stream.mark()).rejects.toThrow(refused('DISPOSED', 'mark: stream is closed, expected an open one'));
    const x = device.zeros([1, 1]);
    expect(() => gemm({ x, w: x }, { stream })).toThrow(
      refused('DISPOSED', 'gemm: stream is closed, expected an open one'),
    );
    expect(() => device.stream.close()).toThrow(
      refused('ARGUMENT', 'stream.close: this is the default stream of cpu; close the device'),
    );
  });

  test('a tensor written on a closed stream can still be read', async () => {
    const stream = device.createStream();
    const t = device.random([3], 'f32', { stream, seed: 4 });
    await stream.close();
    expect(await t.read()).toEqual(await device.random([3], 'f32', { seed: 4 }).read());
  });
});

describe('plans', () => {
  const operands = (seed: number) => ({
    x: device.random([5, 7], 'f32', { seed, distribution: 'integers' }),
    w: device.random([6, 7], 'f32', { seed: seed + 1, distribution: 'integers' }),
  });

  test('run resolves to the outputs of an eager call', async () => {
    const args = operands(1);
    using plan = gemm.bind(args);
    const { y } = await plan.run();
    expect(y).toBe(plan.outputs.y);
    expect(await y.read()).toEqual(await gemm(args).y.read());
    expect(plan.dims).toMatchObject({ m: 5, rowsW: 6, k: 7, n: 6, batch: 1 });
    const params = { alpha: 1, beta: 0, activation: 'none', transX: false, transW: false, batchInvariant: false };
    expect(plan.params).toEqual(params);
    expect(plan.args.x).toBe(args.x);
  });

  test('enqueue needs no receiver', async () => {
    using plan = gemm.bind(operands(2));
    const { enqueue } = plan;
    enqueue();
    await device.stream.mark();
    expect(await plan.outputs.y.read()).toEqual(await gemm(operands(2)).y.read());
  });

  test('rebind changes what later calls use and leaves queued ones alone', async () => {
    const [a, b] = [operands(3), operands(5)];
    const want = [await gemm(a).y.read(), await gemm(b).y.read()];
    using plan = gemm.bind(a);
    const first = plan.outputs.y;
    const second = device.empty([5, 6]);
    plan.enqueue();
    plan.rebind({ ...b, y: second }).enqueue();
    expect(plan.outputs.y).toBe(second);
    expect([await first.read(), await second.read()]).toEqual(want);
  });

  test('rebind refuses what is not alike, and the plan stays as it was', async () => {
    const args = operands(7);
    const want = await gemm(args).y.read();
    using plan = gemm.bind(args);
    const bad = [
      [{ x: device.zeros([4, 7]) }, 'SHAPE', 'gemm.rebind: x is [4, 7], expected [5, 7] as bound'],
      [{ x: device.zeros([5, 7], 'bf16') }, 'DTYPE', 'gemm.rebind: x is bf16, expected f32 as bound'],
      [
        { x: device.zeros([5, 8]).slice([null, [0, 7]]) },
        'ARGUMENT',
        'gemm.rebind: x has strides [8, 1], expected [7, 1] as bound',
      ],
      [
        { bias: device.zeros([6]) },
        'ARGUMENT',
        'gemm.rebind: bias was absent when bound, expected to stay so; bind a new plan',
      ],
      [{ z: device.zeros([6]) }, 'ARGUMENT', 'gemm.rebind: z is not an argument; expected x, w, c, bias, residual, y'],
      [{ x: 1 as never }, 'ARGUMENT', 'gemm.rebind: x is 1, expected a tensor'],
    ] as const;
    for (const [change, code, message] of bad) expect(() => plan.rebind(change)).toThrow(refused(code, message));
    const same = gemm.bind({ x: identity(3), w: identity(3) });
    expect(() => same.rebind({ y: same.args.x })).toThrow(
      refused('ARGUMENT', 'gemm: y overlaps x in memory, expected separate tensors'),
    );
    expect(await (await plan.run()).y.read()).toEqual(want);
  });

  test('explain says what runs and where', () => {
    using plan = gemm.bind(operands(9));
    const facts = plan.explain();
    expect(facts).toMatchObject({ op: 'gemm', backend: 'cpu', device: 'cpu', workspaceBytes: plan.workspaceBytes });
    expect(Object.keys(facts).length).toBeGreaterThan(4);
    using slow = gemm.bind(operands(9), { backend: 'ref' });
    expect(slow.explain()).toMatchObject({ backend: 'ref' });
  });

  test('a plan keeps the memory of its tensors while it lives', async () => {
    const args = operands(11);
    const want = await gemm(args).y.read();
    const plan = gemm.bind(args);
    args.x.dispose();
    args.w.dispose();
    for (let i = 0; i < 50; ++i) device.random([5, 7], 'f32', { seed: i }).dispose();
    expect(await (await plan.run()).y.read()).toEqual(want);
    plan.dispose();
  });

  test('disposing with calls queued is safe, and later use is an error', async () => {
    const x = device.random([300, 300]);
    const plan = gemm.bind({ x, w: x });
    const { y } = plan.outputs;
    const { enqueue } = plan;
    for (let i = 0; i < 5; ++i) plan.enqueue();
    plan.dispose();
    plan.dispose();
    expect(plan.disposed).toBe(true);
    expect(await y.hash()).toBe(await gemm({ x, w: x }).y.hash());
    expect(() => plan.enqueue()).toThrow(refused('DISPOSED', 'gemm: plan is disposed, expected a live one'));
    expect(enqueue).toThrow(expect.objectContaining({ code: 'ERR_KERNWATT_DISPOSED' }));
    await expect(plan.run()).rejects.toThrow(refused('DISPOSED', 'gemm: plan is disposed, expected a live one'));
    expect(() => plan.explain()).toThrow(refused('DISPOSED', 'gemm.explain: plan is disposed, expected a live one'));
    expect(() => plan.rebind({ x })).toThrow(refused('DISPOSED', 'gemm.rebind: plan is disposed, expected a live one'));
  });

  test('outputs take the dtype of the input, of the option, or are given', () => {
    const x = device.zeros([2, 3], 'bf16');
    expect(gemm({ x, w: x }).y.dtype).toBe('bf16');
    expect(gemm({ x, w: x }, { dtype: 'f32' }).y.dtype).toBe('f32');
    const y = device.zeros([2, 2], 'f16');
    expect(gemm({ x, w: x, y }).y).toBe(y);
  });
});

test('eager calls leave nothing behind but their outputs', async () => {
  await device.stream.sync();
  const x = device.random([8, 8]);
  await collect();
  const before = native().counters();
  const outputs = Array.from({ length: 100 }, () => gemm({ x, w: x }).y);
  await device.stream.sync();
  expect(native().counters()).toMatchObject({ buffers: before.buffers + 100, plans: before.plans, pending: 0 });
  for (const y of outputs) y.dispose();
  await device.stream.sync();
  expect(native().counters()).toMatchObject({ buffers: before.buffers, bytes: before.bytes });
  x.dispose();
});

test('a failed bind leaves nothing behind', async () => {
  const x = device.zeros([4, 4]);
  await device.stream.sync();
  await collect();
  const before = native().counters();
  expect(() => gemm({ x, w: x, activation: 'swish' as never })).toThrow();
  expect(() => gemm({ x, w: x, y: x })).toThrow();
  expect(() => gemm({ x, w: x }, { backend: 'cuda' })).toThrow();
  expect(native().counters()).toEqual(before);
  x.dispose();
});
