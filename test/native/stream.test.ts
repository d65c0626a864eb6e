// Order of work on a CPU stream, promises of it, and that nothing but syncNow() holds the event loop.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { native } from '../../src/native.js';
import { Bench } from './raw.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench.close());

const scalar = (value: number) => bench.tensor([value], [1, 1]);

test('marks resolve in the order in which they were made', async () => {
  const { enqueue } = bench.square(64);
  const order: number[] = [];
  const marks = Array.from({ length: 200 }, (_, i) => {
    if (i % 3 === 0) enqueue();
    return bench.mark().then(() => order.push(i));
  });
  await Promise.all(marks);
  expect(order).toEqual(order.map((_, i) => i));
});

test('a mark on an idle stream does not overtake one that is on its way', async () => {
  const order: string[] = [];
  const { enqueue } = bench.square(8);
  for (let i = 0; i < 200; i++) {
    enqueue();
    const first = bench.mark().then(() => order.push('first'));
    const until = performance.now() + 0.2;
    while (performance.now() < until);
    await Promise.all([first, bench.mark().then(() => order.push('second'))]);
    expect(order.splice(0)).toEqual(['first', 'second']);
  }
});

test('work runs in the order in which it was queued, reads and writes included', async () => {
  const [x, w, y] = [scalar(1), scalar(2), scalar(0)];
  const plan = bench.plan({ x, w, y });
  const enqueue = native().enqueueFunction(plan);
  const { enqueue: slow } = bench.square(256);
  const reads: Promise<number[]>[] = [];
  for (let i = 1; i <= 50; i++) {
    if (i % 10 === 0) slow();
    native().write(bench.stream, x, Float32Array.of(i), false);
    enqueue();
    reads.push(bench.read(y));
  }
  expect((await Promise.all(reads)).flat()).toEqual(Array.from({ length: 50 }, (_, i) => 2 * (i + 1)));
});

test('a rebound plan changes later calls alone', async () => {
  const { enqueue: slow } = bench.square(256);
  const outputs = Array.from({ length: 20 }, () => scalar(-1));
  const [w, plan] = [scalar(10), bench.plan({ x: scalar(0), w: scalar(10), y: outputs[0] })];
  const enqueue = native().enqueueFunction(plan);
  slow();
  for (const [i, y] of outputs.entries()) {
    const x = scalar(i);
    native().rebindPlan(plan, { x, w, y });
    enqueue();
    native().free(x.buffer);
  }
  for (const [i, y] of outputs.entries()) expect(await bench.read(y)).toEqual([10 * i]);
});

test('plans of one stream share one workspace, which grows with the largest', async () => {
  const one = await Bench.open();
  const squares = [8, 512, 64].map((n) => one.square(n));
  const plans = squares.map(({ plan }) => plan);
  const workspaces = plans.map((plan) => native().workspaceBytes(plan));
  const tensors = [8, 512, 64].reduce((sum, n) => sum + 3 * n * n * 4, 0);
  // The first plan keeps the block it was made with until it goes.
  expect(native().memory(one.device).currentBytes).toBe(tensors + workspaces[0]! + workspaces[1]!);
  native().destroyPlan(plans[0]!);
  await one.mark();
  expect(native().memory(one.device).currentBytes).toBe(tensors + workspaces[1]!);
  expect(squares).toHaveLength(3); // uncollected until here, their tensors with them
  await one.close();
});

test('syncNow() returns when everything queued has run', () => {
  const [x, w, y] = [scalar(3), scalar(4), scalar(0)];
  const { enqueue: slow } = bench.square(256);
  slow();
  native().enqueueFunction(bench.plan({ x, w, y }))();
  native().syncNow(bench.stream);
  const into = new Float32Array(1);
  void native().read(bench.stream, y, into, false);
  expect(into[0]).toBe(12);
});

test('the event loop turns while work runs', async () => {
  const { enqueue, plan } = bench.square(1024);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  for (let i = 0; i < 30; i++) enqueue();
  const sampled = native().sample(bench.stream, {
    cases: [[plan]],
    order: new Uint32Array(10),
    calls: Uint32Array.of(2),
    clock: 'device',
  });
  delay.enable();
  let turns = 0;
  let done = false;
  void sampled.then(() => {
    done = true;
  });
  while (!done) {
    await new Promise((next) => setTimeout(next, 1));
    ++turns;
  }
  delay.disable();
  // A call takes some ten milliseconds and 50 of them run; a loop that waited for them would turn once.
  expect(turns).toBeGreaterThan(20);
});

describe('sample', () => {
  const options = (more: object) => ({ order: new Uint32Array(6), calls: Uint32Array.of(3), ...more }) as never;

  test.each(['device', 'stream'] as const)('%s clock: one time per sample, in order', async (clock) => {
    const { plan } = bench.square(64);
    const before = Number(process.hrtime.bigint()) / 1e9;
    const result = await native().sample(bench.stream, options({ cases: [[plan]], clock }));
    const after = Number(process.hrtime.bigint()) / 1e9;
    expect(result.seconds).toHaveLength(6);
    for (const seconds of result.seconds) expect(seconds).toBeGreaterThan(0);
    const start = [...result.start];
    expect(start).toEqual([...start].sort((a, b) => a - b));
    expect(start[0]).toBeGreaterThan(before);
    expect(start[5]! + 3 * result.seconds[5]!).toBeLessThan(after);
    expect(result.stealShare === -1 || (result.stealShare >= 0 && result.stealShare <= 1)).toBe(true);
  });

  test('cases take turns as ordered, and each rotates over its plans', async () => {
    const outputs = [0, 1, 2].map(() => scalar(0));
    const counts = outputs.map((c) => bench.plan({ x: scalar(1), w: scalar(1), c, y: c, beta: 1 }));
    await native().sample(bench.stream, {
      cases: [[counts[0]!, counts[1]!], [counts[2]!]],
      order: Uint32Array.of(0, 1, 1, 0, 1),
      calls: Uint32Array.of(3, 2),
      clock: 'device',
    });
    expect(await Promise.all(outputs.map((y) => bench.read(y)))).toEqual([[3], [3], [6]]);
  });

  test.each([
    [{ cases: [] }, 'ARGUMENT'],
    [{ cases: [[]] }, 'ARGUMENT'],
    [{ order: Uint32Array.of(1) }, 'ARGUMENT'],
    [{ order: [0] }, 'ARGUMENT'],
    [{ calls: Uint32Array.of(0) }, 'ARGUMENT'],
    [{ calls: Uint32Array.of(1, 1) }, 'ARGUMENT'],
    [{ clock: 'wall' }, 'ARGUMENT'],
  ])('%j is refused', (change, expected) => {
    const { plan } = bench.square(4);
    expect(() => native().sample(bench.stream, options({ cases: [[plan]], clock: 'device', ...change }))).toThrow(
      expect.objectContaining({ code: `ERR_KERNWATT_${expected}` }),
    );
  });

  test('plans of another stream are refused', () => {
    const stream = native().createStream(bench.device);
    const { plan } = bench.square(4);
    expect(() => native().sample(stream, options({ cases: [[plan]], clock: 'device' }))).toThrow(/another stream/);
  });
});
