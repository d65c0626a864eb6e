// Nothing but syncNow() blocks the event loop: turns of it are counted, and the longest pause measured, while each thing that
// takes a while is under way.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CallOptions, type Device, type DeviceName, gemm, openDevice } from '../src/index.js';
import { fakeLibrary } from './native/raw.js';
import { targets } from './targets.js';

/** Longest pause allowed, in milliseconds: far above what a busy machine with two cores causes by itself. */
const longest = 400;

interface Watched<T> {
  value: T;
  /** Turns of the event loop until the promise settled, at most one for each millisecond. */
  turns: number;
  milliseconds: number;
  /** Longest time between two turns, in milliseconds. */
  pause: number;
}

async function watch<T>(body: () => Promise<T>): Promise<Watched<T>> {
  await new Promise((done) => setTimeout(done, 2));
  const begin = performance.now();
  let [turns, pause, last] = [0, 0, begin];
  const beat = () => {
    const now = performance.now();
    pause = Math.max(pause, now - last);
    last = now;
    ++turns;
  };
  const timer = setInterval(beat, 1);
  try {
    const value = await body();
    beat();
    return { value, turns, pause, milliseconds: last - begin };
  } finally {
    clearInterval(timer);
  }
}

const emulated = targets().targets.some(({ name }) => name === 'emu:0');
const devices: [DeviceName, CallOptions][] = [['cpu', { backend: 'ref' }]];
if (emulated) devices.push(['emu:0', {}]);

describe.each(devices)('on %s', (name, options) => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice(name);
  });
  afterAll(() => device.close());

  test('one kernel that takes a second leaves it at least 50 turns', async () => {
    for (let m = 64; ; m *= 2) {
      using x = device.random([m, 128]);
      using w = device.random([128, 128]);
      await device.stream.mark();
      using plan = gemm.bind({ x, w }, options);
      const { turns, pause, milliseconds } = await watch(() => plan.run());
      plan.outputs.y.dispose();
      if (milliseconds < 1000) continue;
      expect(turns).toBeGreaterThanOrEqual(50);
      expect(pause).toBeLessThan(longest);
      return;
    }
  });

  test('a full queue is an error at once, and waiting for it leaves turns', async () => {
    using x = device.random([64, 64]);
    using plan = gemm.bind({ x, w: x });
    const { turns, pause, value } = await watch(async () => {
      const begin = performance.now();
      try {
        for (;;) plan.enqueue();
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_KERNWATT_BUSY' });
      }
      const spent = performance.now() - begin;
      await device.stream.mark();
      return spent;
    });
    expect(value).toBeLessThan(longest);
    expect(turns).toBeGreaterThan(0);
    expect(pause).toBeLessThan(longest);
    plan.outputs.y.dispose();
  });

  test('large arrays are uploaded in pieces, with a turn after each', async () => {
    const data = new Float32Array(2 ** (name === 'cpu' ? 25 : 23)).map((_, i) => i % 1021);
    let pieces = 0;
    let uploading = true;
    const count = () => {
      ++pieces;
      if (uploading) setImmediate(count);
    };
    setImmediate(count);
    const { value, pause } = await watch(() => device.upload(data, [data.length / 1024, 1024]));
    uploading = false;
    expect(pieces).toBeGreaterThanOrEqual(data.length / 2 ** 18 - 1);
    expect(pause).toBeLessThan(longest);
    expect(await value.hash()).toBe(await device.tensor(data, [data.length / 1024, 1024]).hash());
    value.dispose();
  });

  test('a pool takes large requests without a pause', async () => {
    const [k, n] = [4096, 4];
    const m = name === 'cpu' ? 4096 : 128;
    using w = device.full([n, k], 1);
    await using pool = gemm.pool({ m, w }, { slots: 2 });
    const x = new Float32Array(m * k).fill(2);
    const { pause, turns, value } = await watch(() => Promise.all([pool.run({ x }), pool.run({ x }), pool.run({ x })]));
    for (const { y } of value) expect(y.every((v) => v === 2 * k)).toBe(true);
    expect(turns).toBeGreaterThan(0);
    expect(pause).toBeLessThan(longest);
  });

  test('opening, allocating much, filling it, binding the first plan and closing leave no long pause', async () => {
    // Emulated devices fill what they allocate with poison, on the spot: there, little.
    const elements = name === 'cpu' ? 2 ** 27 : 2 ** 20;
    const steps: [string, () => Promise<unknown>][] = [
      ['openDevice', () => openDevice(name)],
      ['first plan', async () => (await openDevice(name)).close()],
      ['alloc', async () => device.empty([elements]).dispose()],
      [
        'zeros',
        async () => {
          using zeros = device.zeros([elements]);
          await device.stream.mark();
          return zeros.shape;
        },
      ],
    ];
    for (const [step, body] of steps) {
      const { pause, value } = await watch(body);
      expect(pause, step).toBeLessThan(longest);
      if (step === 'openDevice') await (value as Device).close();
    }
    const { pause } = await watch(async () => {
      await using other = await openDevice(name);
      using x = other.random([96, 96], 'bf16');
      const { y } = gemm({ x, w: x });
      return y.read();
    });
    expect(pause).toBeLessThan(longest);
  });
});

test('a driver that takes half a second to wake does so elsewhere', async () => {
  const library = fakeLibrary('slow-sm90');
  const { value, turns, milliseconds, pause } = await watch(() => openDevice('cuda', { library }));
  expect(milliseconds).toBeGreaterThanOrEqual(500);
  expect(turns).toBeGreaterThanOrEqual(50);
  expect(pause).toBeLessThan(longest);
  await value.close();
});

test('an upload refuses what does not fit, stops when aborted, and notices an array that goes away', async () => {
  await using device = await openDevice('cpu', { threads: 1 });
  const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });
  await expect(device.upload(new Float32Array(3), [2])).rejects.toThrow(
    refused('SHAPE', 'upload: data has 3 elements, expected 2 for [2]'),
  );
  await expect(device.upload(new Uint16Array(3))).rejects.toThrow(
    refused('DTYPE', 'upload: dtype is missing, expected f16 or bf16 for a Uint16Array'),
  );
  const reason = new Error('no longer wanted');
  await expect(device.upload(new Float32Array(3), [3], 'f32', { signal: AbortSignal.abort(reason) })).rejects.toBe(
    reason,
  );
  const large = new Float32Array(2 ** 20);
  const controller = new AbortController();
  const stopped = device.upload(large, [2 ** 20], 'f32', { signal: controller.signal });
  controller.abort(reason);
  await expect(stopped).rejects.toBe(reason);
  const lost = device.upload(large);
  structuredClone(large.buffer, { transfer: [large.buffer] });
  await expect(lost).rejects.toThrow(
    refused(
      'ARGUMENT',
      'upload: data has 0 elements after 262144 of them, expected 1048576 to the end; leave it alone until then',
    ),
  );
  await device.stream.mark();
  expect(device.memory().allocations).toBe(0);
});
