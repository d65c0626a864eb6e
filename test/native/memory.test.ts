// The allocator, its limits, and memory that JavaScript or other environments own, seen from below.
import { describe, expect, test } from 'vitest';
import { type BufferHandle, type NativeView, native } from '../../src/native.js';
import { Bench, collect, fakeLibrary, type Options } from './raw.js';

const coded = (name: string, message: RegExp) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${name}`, message: expect.stringMatching(message) });
const MiB = 2 ** 20;
const kinds: [string, () => Options][] = [
  ['the CPU', () => ({ kind: 'cpu', threads: 2 })],
  ['a library', () => ({ kind: 'library', library: fakeLibrary() })],
];
const over = (buffer: BufferHandle, n: number): NativeView => ({
  buffer,
  offset: 0,
  dtype: 0,
  shape: [n],
  stride: [1],
});

describe.each(kinds)('blocks of %s', (_, options) => {
  test('let go are kept, serve requests of about their size, and are given back by trim()', async () => {
    const { device, close } = await open(options());
    const memory = () => native().memory(device);
    native().free(native().alloc(device, 4 * MiB));
    expect(memory()).toMatchObject({ currentBytes: 0, reservedBytes: 4 * MiB, reservedPeakBytes: 4 * MiB });
    const again = native().alloc(device, 4 * MiB - 1000);
    expect(memory()).toMatchObject({ currentBytes: 4 * MiB - 1000, reservedBytes: 4 * MiB });
    const other = native().alloc(device, MiB);
    expect(memory()).toMatchObject({ reservedBytes: 5 * MiB });
    native().free(other);
    native().free(again);
    expect(await native().trim(device)).toBe(5 * MiB);
    expect(memory()).toMatchObject({
      currentBytes: 0,
      peakBytes: 5 * MiB - 1000,
      reservedBytes: 0,
      reservedPeakBytes: 5 * MiB,
    });
    expect(await native().trim(device)).toBe(0);
    await close();
  });

  test('waste at most an eighth', async () => {
    const { device, close } = await open(options());
    for (const bytes of [513, 1000, 4097, 65_537, 300_000, MiB + 1, 17 * MiB + 1]) {
      const buffer = native().alloc(device, bytes);
      const { reservedBytes } = native().memory(device);
      expect(reservedBytes).toBeGreaterThanOrEqual(bytes);
      expect(reservedBytes).toBeLessThanOrEqual(bytes + Math.max(bytes / 8, 256));
      native().free(buffer);
      await native().trim(device);
    }
    await close();
  });

  test('whose work is queued are passed on by that stream at once, and by no other', async () => {
    const { bench, device, stream, close } = await open(options());
    const n = 300_000;
    const x = bench.empty([n]);
    native().fill(stream, x, 'constant', 0, 1, 0);
    await bench.mark();
    const { plan, ms } = slow(bench, x);
    native().enqueue(plan);
    const reserved = native().memory(device).reservedBytes;
    const outputs: Promise<Float32Array>[] = [];
    for (let i = 0; i < 20; i++) {
      const y = over(native().alloc(device, 4 * n, stream), n);
      native().fill(stream, y, 'constant', 0, i, 0);
      const into = new Float32Array(n);
      outputs.push(
        native()
          .read(stream, y, into, false)
          .then(() => into),
      );
      native().free(y.buffer);
    }
    // One block for twenty tensors, all of them still queued.
    expect(native().memory(device).reservedBytes - reserved).toBeLessThan(2 * 4 * n);
    const passed = native().alloc(device, 4 * n, stream);
    const elsewhere = native().createStream(device);
    const refused = coded('ARGUMENT', /is in memory that another stream still works on/);
    expect(() => native().fill(elsewhere, over(passed, n), 'constant', 0, 9, 0)).toThrow(refused);
    expect(() => native().write(elsewhere, over(passed, 1), Float32Array.of(1), false)).toThrow(refused);
    // Without naming the stream, memory is none that anything is queued on.
    const fresh = native().alloc(device, 4 * n);
    native().fill(elsewhere, over(fresh, n), 'constant', 0, 9, 0);
    for (const [i, values] of (await Promise.all(outputs)).entries()) expect(values.every((v) => v === i)).toBe(true);
    await bench.mark();
    native().fill(elsewhere, over(passed, n), 'constant', 0, 9, 0);
    expect(ms).toBeGreaterThan(0);
    await native().destroyStream(elsewhere);
    await close();
  });

  test('beyond the limit are OUT_OF_MEMORY; what is kept is given back first', async () => {
    const { device, bench, close } = await open({ ...options(), memoryLimit: 10 * MiB });
    expect(native().memory(device)).toMatchObject({ limitBytes: 10 * MiB });
    const kept = bench.tensor([1, 2, 3]);
    const held = native().alloc(device, 4 * MiB);
    expect(() => native().alloc(device, 6 * MiB)).toThrow(
      coded(
        'OUT_OF_MEMORY',
        /^alloc: bytes is 6291456, expected at most 6290944, what the memoryLimit of 10485760 leaves/,
      ),
    );
    for (const bytes of [2 ** 40, Number.MAX_SAFE_INTEGER])
      expect(() => native().alloc(device, bytes)).toThrow(coded('OUT_OF_MEMORY', new RegExp(`bytes is ${bytes}, `)));
    native().free(held);
    const most = native().alloc(device, 10 * MiB - 512);
    expect(native().memory(device)).toMatchObject({ reservedBytes: 10 * MiB, reservedPeakBytes: 10 * MiB });
    native().free(most);
    expect(await bench.read(kept)).toEqual([1, 2, 3]);
    await close();
  });

  test.each([0, -1, 0.5, Number.NaN, Infinity, 2 ** 60, '8'])('a limit of %s is refused', async (memoryLimit) => {
    const refused = coded('ARGUMENT', /^openDevice: memoryLimit is /);
    await expect(
      (async () => native().openDevice({ ...options(), memoryLimit: memoryLimit as number }))(),
    ).rejects.toEqual(refused);
  });

  test('are all given back when the device closes or is collected', async () => {
    await collect();
    const before = native().counters();
    const { device, close } = await open(options());
    native().free(native().alloc(device, 64 * MiB));
    await close();
    await (async () => {
      const left = await Bench.open(options());
      native().free(native().alloc(left.device, 64 * MiB));
      await left.mark();
    })();
    await collect();
    expect(native().counters()).toEqual(before);
  });
});

async function open(options: Options) {
  const bench = await Bench.open(options);
  return { bench, device: bench.device, stream: bench.stream, close: () => bench.close() };
}

/** Something that takes a while on either kind of device. */
function slow(bench: Bench, x: NativeView) {
  const library = native().memory(bench.device).totalBytes === 256 * MiB;
  const small = { ...x, shape: [16], stride: [1] };
  if (library) {
    const args = { x: small, w: small, y: bench.empty([16]), alpha: 1, beta: 100 };
    return { plan: bench.plan(args, 'library'), ms: 100 };
  }
  return { plan: bench.square(1024).plan, ms: 1 };
}

test('memory that JavaScript looks at is not passed on', async () => {
  const { bench, device, stream, close } = await open({ kind: 'cpu', threads: 2 });
  const buffer = native().alloc(device, 400_000, stream);
  const seen = new Float32Array(native().expose(buffer)!);
  seen.fill(3);
  native().enqueue(slow(bench, over(buffer, 100_000)).plan);
  native().copy(stream, over(buffer, 100_000), bench.empty([100_000]));
  native().free(buffer);
  native().fill(stream, over(native().alloc(device, 400_000, stream), 100_000), 'constant', 0, 4, 0);
  await bench.mark();
  expect(seen.every((v) => v === 3)).toBe(true);
  await close();
});

test('an emulated device keeps nothing, so that it sees every stray access', async () => {
  const { bench, device, stream, close } = await open({ kind: 'library', library: fakeLibrary('emulated') });
  const buffer = native().alloc(device, 1001);
  expect(native().memory(device)).toMatchObject({ reservedBytes: 1001 });
  native().fill(stream, over(buffer, 4), 'constant', 0, 1, 0);
  native().free(buffer);
  expect(native().alloc(device, 1001, stream)).toBeDefined();
  await bench.mark();
  expect(native().memory(device)).toMatchObject({ reservedBytes: 1001, currentBytes: 1001 });
  await close();
});

describe.each(kinds)('host buffers of %s', (_, options) => {
  test('are written from and read into in place, whatever becomes of them meanwhile', async () => {
    await collect();
    const before = native().counters().hostBuffers;
    const { bench, device, stream, close } = await open(options());
    const n = 300_000;
    const buffer = await native().hostBuffer(device, 4 * n);
    const values = new Float32Array(buffer);
    const x = bench.empty([n]);
    native().enqueue(slow(bench, x).plan);
    native().write(stream, x, values, false);
    values.fill(7); // before the stream comes to it: nothing was copied
    const into = new Float32Array(await native().hostBuffer(device, 4 * n));
    await native().read(stream, x, into, false);
    expect(into.every((v) => v === 7)).toBe(true);
    native().enqueue(slow(bench, x).plan);
    values.fill(8);
    native().write(stream, x, values, false);
    const reading = native().read(stream, x, into, false);
    native().detach(buffer);
    native().detach(into.buffer);
    expect([values.length, into.length]).toEqual([0, 0]);
    await reading;
    expect(await bench.read(over(x.buffer, 3))).toEqual([8, 8, 8]);
    await collect();
    expect(native().counters().hostBuffers).toBe(before);
    await close();
  });

  test('convert like any array, and are OUT_OF_MEMORY beyond what there is', async () => {
    const { bench, device, stream, close } = await open(options());
    const ints = new Int32Array(await native().hostBuffer(device, 400_000)).fill(-3);
    const x = bench.empty([100_000]);
    native().write(stream, x, ints, false);
    const half = bench.empty([100_000], 'bf16');
    native().copy(stream, x, half);
    const into = new Float32Array(await native().hostBuffer(device, 400_000));
    await native().read(stream, half, into, false);
    expect(into.every((v) => v === -3)).toBe(true);
    await expect(native().hostBuffer(device, 2 ** 45)).rejects.toEqual(
      coded('OUT_OF_MEMORY', /bytes is 35184372088832/),
    );
    for (const bytes of [0, -1, Number.NaN, 2 ** 53])
      expect(() => native().hostBuffer(device, bytes)).toThrow(coded('ARGUMENT', /^hostBuffer: bytes is /));
    await close();
  });
});

test('a tensor over a host buffer keeps its memory when the ArrayBuffer is detached', async () => {
  const { bench, device, stream, close } = await open({ kind: 'cpu', threads: 2 });
  const buffer = await native().hostBuffer(device, 4 * 300_000);
  const handle = native().wrap(device, new Float32Array(buffer));
  const y = bench.empty([300_000]);
  native().enqueue(slow(bench, y).plan);
  native().copy(stream, over(handle, 300_000), y);
  native().detach(buffer);
  await collect();
  await bench.mark();
  expect(() => native().copy(stream, over(handle, 1), over(y.buffer, 1))).toThrow(
    coded('DISPOSED', /over a detached ArrayBuffer/),
  );
  native().free(handle);
  await close();
});

test('a plan over an array that was taken away is refused', async () => {
  const { bench, device, close } = await open({ kind: 'cpu', threads: 2 });
  const array = new Float32Array(1).fill(2);
  const x: NativeView = { ...bench.tensor([3], [1, 1]), buffer: native().wrap(device, array) };
  const plan = bench.plan({ x, w: bench.tensor([5], [1, 1]), y: bench.tensor([0], [1, 1]) });
  native().enqueue(plan);
  await bench.mark();
  structuredClone(array, { transfer: [array.buffer] });
  expect(() => native().enqueue(plan)).toThrow(coded('DISPOSED', /disposed or detached/));
  await close();
});

describe('an address', () => {
  test('works like memory of the library, and its owner lives as long', async () => {
    const { bench, device, stream, close } = await open({ kind: 'library', library: fakeLibrary() });
    // Host memory has an address that the fake library can use.
    const view = bench.tensor([1, 2, 3]);
    const collected: string[] = [];
    const registry = new FinalizationRegistry((name: string) => collected.push(name));
    const args = { x: view, w: view, y: view, alpha: 1 };
    const pointer = BigInt(JSON.parse(native().explain(bench.plan(args, 'library'))).x);
    const handle = (() => {
      const owner = { view };
      registry.register(owner, 'owner');
      return native().wrapPointer(device, pointer, 12, owner);
    })();
    await collect();
    expect(await bench.read(over(handle, 3))).toEqual([1, 2, 3]);
    expect(collected).toEqual([]);
    native().free(handle);
    await bench.mark();
    await collect();
    await collect();
    expect(collected).toEqual(['owner']);
    expect(stream).toBeDefined();
    await close();
  });

  test.each([0n, -1n, 2n ** 64n, 2n ** 64n - 4n, 5, undefined])('of %s is refused', async (pointer) => {
    const { device, close } = await open({ kind: 'cpu', threads: 1 });
    expect(() => native().wrapPointer(device, pointer as bigint, 8, {})).toThrow(
      coded('ARGUMENT', /pointer is no address/),
    );
    await close();
  });
});
