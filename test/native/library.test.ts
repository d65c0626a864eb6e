// The addon over a library of kernels, played by fake_library.cc: opening and refusing it, streams and events, transfers,
// failures that come late, a device that is lost, and that nothing of it leaks.
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DeviceHandle, type NativeView, native } from '../../src/native.js';
import { addonFile, Bench, collect, fakeLibrary } from './raw.js';

const coded = (name: string, message: RegExp) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${name}`, message: expect.stringMatching(message) });
const sleep = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds));

let bench: Bench;
let library: string;
beforeAll(async () => {
  library = fakeLibrary();
  bench = await Bench.open({ kind: 'library', library });
});
afterAll(() => bench.close());

/** y = alpha x after `delay` ms. */
function scaling(on: Bench, x: NativeView, alpha: number, delay = 0, y = on.empty([...x.shape])) {
  const plan = native().createPlan('gemm', 'library', on.stream, { x, w: x, y, alpha, beta: delay });
  return { plan, y, enqueue: native().enqueueFunction(plan) };
}

describe('loading', () => {
  test('says what a library offers', () => {
    expect(native().loadLibrary(library)).toEqual({ abi: 3, build: 'fake', ops: ['gemm'], deviceCount: 2, reason: '' });
    expect(native().loadLibrary(fakeLibrary('empty'))).toMatchObject({ deviceCount: 0, reason: 'fake: no driver' });
  });

  test.each([
    [
      'a file that is not there',
      () => '/nowhere/libkernwatt_cuda.so',
      /\/nowhere\/libkernwatt_cuda.so: .*No such file/,
    ],
    ['a file that is no library', () => new URL(import.meta.url).pathname, /library.test.ts: .*invalid ELF header/],
    ['a library without the table', () => addonFile, /has no function kw_cuda_table/],
    ['another abi', () => fakeLibrary('abi'), /speaks abi 99, expected 3/],
    ['a table it will not give', () => fakeLibrary('mute'), /does not speak abi 3/],
    ['arguments of another build', () => fakeLibrary('args'), /arguments of gemm have 8 bytes, expected \d+/],
  ])('refuses %s with LIBRARY and the reason', async (_, file, reason) => {
    const path = file();
    expect(existsSync(path) || path.startsWith('/nowhere')).toBe(true);
    expect(() => native().loadLibrary(path)).toThrow(coded('LIBRARY', reason));
    await expect(native().openDevice({ kind: 'library', library: path })).rejects.toEqual(coded('LIBRARY', reason));
  });

  test('a device number there is not, or no device at all', async () => {
    const open = (index: number, file = library) => native().openDevice({ kind: 'library', library: file, index });
    await expect(open(2)).rejects.toEqual(coded('ARGUMENT', /index is 2, expected a device number below 2/));
    await expect(open(0, fakeLibrary('empty'))).rejects.toEqual(coded('CUDA', /no driver/));
  });

  test('backends of the addon do not run there', () => {
    const x = bench.empty([4]);
    for (const backend of ['cpu', 'ref'] as const)
      expect(() => native().createPlan('gemm', backend, bench.stream, { x, w: x, y: x })).toThrow(
        coded('ARGUMENT', /expected library/),
      );
  });
});

describe('work', () => {
  test('runs in order without blocking, and promises wait for it', async () => {
    const x = bench.tensor([1, 2, 3]);
    const a = scaling(bench, x, 2, 300);
    const b = scaling(bench, a.y, 5);
    const from = performance.now();
    a.enqueue();
    b.enqueue();
    expect(performance.now() - from).toBeLessThan(250);
    expect(await bench.read(b.y)).toEqual([10, 20, 30]);
    expect(performance.now() - from).toBeGreaterThanOrEqual(300);
  });

  test('queued behind a host step keeps its place', async () => {
    const x = bench.tensor(
      Array.from({ length: 6 }, () => 0),
      [2, 3],
    );
    const column = { ...x, shape: [2], stride: [3], offset: 1 };
    const slow = scaling(bench, bench.tensor([0]), 1, 10);
    const reads: Promise<number[]>[] = [];
    for (let i = 1; i <= 20; i++) {
      slow.enqueue();
      native().write(bench.stream, column, Float32Array.of(i, -i), false);
      const { y, enqueue, plan } = scaling(bench, x, 10);
      enqueue();
      native().destroyPlan(plan);
      reads.push(bench.read(y));
      native().free(y.buffer);
    }
    const expected = Array.from({ length: 20 }, (_, i) => [0, 10 * (i + 1), 0, 0, -10 * (i + 1), 0]);
    expect(await Promise.all(reads)).toEqual(expected.map((row) => row.map((v) => v + 0)));
  });

  test('on one stream does not hold up another', async () => {
    const other = native().createStream(bench.device);
    const slow = scaling(bench, bench.tensor([1]), 1, 500);
    slow.enqueue();
    const long = bench.mark().then(() => performance.now());
    await native().mark(other);
    const short = performance.now();
    expect(await long).toBeGreaterThan(short + 50);
    await native().destroyStream(other);
  });

  test('declines with the library’s reason', () => {
    const x = bench.empty([4]);
    const args = { x, w: x, y: x, activation: 1 };
    expect(native().declines('gemm', 'library', bench.device, args)).toBe('fake: it has no activations');
    expect(native().declines('gemm', 'library', bench.device, { ...args, activation: 0 })).toBe('');
    expect(() => native().createPlan('gemm', 'library', bench.stream, args)).toThrow(
      coded('UNSUPPORTED', /activations/),
    );
  });

  test('a rebind that the plan refuses leaves it as it was, queued calls too', async () => {
    const { plan, y, enqueue } = scaling(bench, bench.tensor([4]), 3, 5);
    const large = bench.empty([2 ** 20 + 1]);
    enqueue();
    expect(() => native().rebindPlan(plan, { x: large, w: large, y: large, alpha: 1 })).toThrow(
      coded('UNSUPPORTED', /capacity/),
    );
    enqueue();
    expect(await bench.read(y)).toEqual([12]);
  });

  test('is refused with BUSY beyond the queue’s capacity, and taken again later, marked or not', async () => {
    const { enqueue } = scaling(bench, bench.tensor([1]), 1, 0.2);
    let queued = 0;
    expect(() => {
      for (; queued < 10_000; queued++) enqueue();
    }).toThrow(coded('BUSY', /queued calls is 512/));
    // Without a mark the addon still learns of progress, from an event now and then.
    let taken = false;
    for (const until = performance.now() + 5000; !taken && performance.now() < until; await sleep(5)) {
      try {
        enqueue();
        taken = true;
      } catch {
        // Still full.
      }
    }
    expect(taken).toBe(true);
    await bench.mark();
  });
});

describe('transfers', () => {
  const values = (n: number) => Array.from({ length: n }, (_, i) => i % 1000);

  // By the three ways there are: in the stream, in the stream with a larger block, and as a host step.
  test.each([10, 300_000, 5_000_000])('of %d elements come back as they went', async (n) => {
    const from = Float32Array.from({ length: n }, (_, i) => i % 1000);
    const [view, into] = [bench.empty([n]), new Float32Array(n)];
    native().write(bench.stream, view, from, false);
    await native().read(bench.stream, view, into, false);
    expect(Buffer.from(into.buffer).equals(Buffer.from(from.buffer))).toBe(true);
    const half = bench.empty([n], 'bf16');
    native().copy(bench.stream, view, half);
    const back = bench.empty([n]);
    native().copy(bench.stream, half, back);
    await native().read(bench.stream, back, into.fill(0), false);
    expect([...into.subarray(0, 200)]).toEqual(values(Math.min(n, 200)));
    const same = bench.empty([n]);
    native().copy(bench.stream, view, same);
    expect(await native().hash(bench.stream, same)).toBe(await native().hash(bench.stream, view));
  });

  test('through strides, reading and writing, like the CPU', async () => {
    const cpu = await Bench.open();
    const results: unknown[] = [];
    for (const on of [bench, cpu]) {
      const whole = on.tensor(values(60), [3, 4, 5]);
      const part = { ...whole, offset: 6, shape: [2, 3, 2], stride: [20, 5, 2] };
      const turned = { ...whole, shape: [5, 4, 3], stride: [1, 5, 20] };
      native().write(
        on.stream,
        part,
        Float32Array.from(values(12), (v) => -v),
        false,
      );
      native().copy(on.stream, part, { ...on.empty([100]), shape: [2, 3, 2], stride: [30, 10, 1] });
      native().fill(on.stream, { ...whole, offset: 1, shape: [3, 2], stride: [20, 10] }, 'normal', 4, 0, 1);
      const backwards = { ...whole, offset: 59, shape: [60], stride: [-1] };
      results.push([await on.read(turned), await on.read(backwards), await native().hash(on.stream, turned)]);
    }
    expect(results[0]).toEqual(results[1]);
    await cpu.close();
  });

  test('fills give the CPU’s numbers', async () => {
    const cpu = await Bench.open();
    for (const distribution of ['constant', 'uniform', 'normal', 'integers']) {
      const hashes = [bench, cpu].map((on) => {
        const view = on.empty([1000, 77], 'bf16');
        native().fill(on.stream, view, distribution, 9, -2, 2);
        return native().hash(on.stream, view);
      });
      expect(await hashes[0]).toBe(await hashes[1]);
    }
    await cpu.close();
  });
});

describe('failures', () => {
  const failing = async (alpha: number) => {
    const x = bench.tensor([1]);
    const [bad, good] = [scaling(bench, x, alpha, 1), scaling(bench, x, 7)];
    return { bad, good };
  };

  test.each([
    [-1, /the launch failed/],
    [-2, /the call failed/],
  ])('alpha %d: the first rejects the next promise, and later work goes on', async (alpha, reason) => {
    const { bad, good } = await failing(alpha);
    bad.enqueue();
    good.enqueue();
    await expect(bench.mark()).rejects.toEqual(coded('CUDA', reason));
    await bench.mark();
    expect(await bench.read(good.y)).toEqual([7]);
    bad.enqueue();
    await expect(bench.read(good.y)).rejects.toEqual(coded('CUDA', reason));
    bad.enqueue();
    expect(() => native().syncNow(bench.stream)).toThrow(coded('CUDA', reason));
    bad.enqueue();
    await expect(native().hash(bench.stream, good.y)).rejects.toEqual(coded('CUDA', reason));
    await bench.mark();
  });

  test('memory that the device has not is OUT_OF_MEMORY, earlier tensors intact', async () => {
    const small = await Bench.open({ kind: 'library', library, index: 1 });
    const kept = small.tensor([1, 2, 3]);
    expect(() => native().alloc(small.device, 2 ** 20)).toThrow(
      coded('OUT_OF_MEMORY', /bytes is 1048576, expected at most 1048064, the bytes free on fake/),
    );
    expect(await small.read(kept)).toEqual([1, 2, 3]);
    expect(native().memory(small.device)).toMatchObject({
      currentBytes: 12,
      reservedBytes: 512,
      freeBytes: 2 ** 20 - 512,
      totalBytes: 2 ** 20,
    });
    await small.close();
  });
});

describe('sample', () => {
  test.each(['device', 'stream'] as const)('%s clock: rotates, by graph or by launches', async (clock) => {
    const x = bench.tensor([1]);
    const plans = [1, 2, 3].map((alpha) => scaling(bench, x, alpha, 1));
    const { seconds } = await native().sample(bench.stream, {
      cases: [plans.slice(0, 2).map(({ plan }) => plan), [plans[2]!.plan]],
      order: Uint32Array.of(0, 1, 0),
      calls: Uint32Array.of(5, 1),
      clock,
    });
    for (const s of seconds) {
      expect(s).toBeGreaterThanOrEqual(0.001);
      expect(s).toBeLessThan(0.1);
    }
    expect(await Promise.all(plans.map(({ y }) => bench.read(y)))).toEqual([[1], [2], [3]]);
  });

  test('rejects with what fails in it', async () => {
    const { plan } = scaling(bench, bench.tensor([1]), -2);
    const sampled = native().sample(bench.stream, {
      cases: [[plan]],
      order: new Uint32Array(2),
      calls: Uint32Array.of(2),
      clock: 'stream',
    });
    await expect(sampled).rejects.toEqual(coded('CUDA', /the call failed/));
  });

  test('refuses an emulated device', async () => {
    const emulated = await Bench.open({ kind: 'library', library: fakeLibrary('emulated') });
    const { plan } = scaling(emulated, emulated.tensor([1]), 1);
    const options = { cases: [[plan]], order: new Uint32Array(1), calls: Uint32Array.of(1), clock: 'device' } as const;
    expect(() => native().sample(emulated.stream, options)).toThrow(coded('UNSUPPORTED', /emulated/));
    await emulated.close();
  });
});

test('nothing is left after everything is released: memory, events, streams, objects', async () => {
  const file = fakeLibrary('leaks');
  await collect();
  const before = native().counters();
  const open = (): Promise<DeviceHandle> => native().openDevice({ kind: 'library', library: file });
  const use = async () => {
    const one = await Bench.open({ kind: 'library', library: file });
    const x = one.tensor([1, 2]);
    for (let i = 0; i < 200; i++) {
      const { enqueue, plan, y } = scaling(one, x, i, 0.05);
      enqueue();
      native().destroyPlan(plan);
      native().free(y.buffer);
      if (i % 50 === 0) await one.read(x);
    }
    await native().destroyStream(one.stream);
    await native().trim(one.device);
    const left = { currentBytes: 8, allocations: 1, reservedBytes: 512, freeBytes: (256 << 20) - 512 };
    expect(native().memory(one.device)).toMatchObject(left);
    await one.close();
  };
  for (let round = 0; round < 3; round++) await use();
  const probe = await open();
  // clockKhz and memoryClockKhz count the library's live events and streams.
  expect(native().deviceInfo(probe)).toMatchObject({ clockKhz: 0, memoryClockKhz: 0 });
  await native().closeDevice(probe);
  await collect();
  expect(native().counters()).toEqual(before);
});
