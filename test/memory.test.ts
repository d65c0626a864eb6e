// Memory as the public interface shows it: limits, reuse by eager calls, host buffers, memory of others, affinity.
import { markAsUntransferable } from 'node:worker_threads';
import { describe, expect, test, vi } from 'vitest';
import { gemm, openDevice } from '../src/index.js';
import { native } from '../src/native.js';

const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: expect.stringMatching(message) });
const MiB = 2 ** 20;

describe('memoryLimit', () => {
  test('holds for tensors and workspaces, and what fits still works', async () => {
    await using device = await openDevice('cpu', { memoryLimit: 8 * MiB });
    expect(device.memory()).toMatchObject({ limitBytes: 8 * MiB, reservedBytes: 0 });
    const x = device.random([256, 256]);
    const expected = refused('OUT_OF_MEMORY', /expected at most \d+, what the memoryLimit of 8388608 leaves on /);
    for (const shape of [[4 * MiB], [2 ** 40], [2 ** 25, 2 ** 25]]) expect(() => device.empty(shape)).toThrow(expected);
    const { y } = gemm({ x, w: x });
    expect((await y.read()).every(Number.isFinite)).toBe(true);
    expect(device.memory().reservedPeakBytes).toBeLessThanOrEqual(8 * MiB);
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 53, '1e9', null])('of %s is refused', async (memoryLimit) => {
    await expect(openDevice('cpu', { memoryLimit: memoryLimit as number })).rejects.toEqual(
      refused('ARGUMENT', /^openDevice: memoryLimit is .*, expected a whole number of bytes/),
    );
  });

  test('there is none by default', async () => {
    await using device = await openDevice('cpu');
    expect(device.memory().limitBytes).toBeNull();
  });
});

test('eager outputs that are disposed of take one block, however many are queued, and each is right', async () => {
  await using device = await openDevice('cpu', { threads: 2 });
  const x = device.random([512, 512], 'f32', { seed: 1 });
  const scales = Array.from({ length: 24 }, (_, i) => device.full([512, 512], i));
  const w = device.random([512, 512], 'f32', { seed: 2 });
  await device.stream.mark();
  const { reservedBytes } = device.memory();
  const hashes = scales.map((scale) => {
    const { y } = gemm({ x, w });
    const { y: z } = gemm({ x: y, w: scale });
    const hash = z.hash();
    y.dispose();
    z.dispose();
    return hash;
  });
  expect(device.memory().reservedBytes - reservedBytes).toBeLessThan(12 * MiB);
  const { y } = gemm({ x, w });
  for (const [i, scale] of scales.entries()) {
    const { y: z } = gemm({ x: y, w: scale });
    expect(await z.hash()).toBe(await hashes[i]);
    z.dispose();
  }
  await device.stream.mark();
  // The last of them goes back just after.
  await vi.waitFor(async () => expect(await device.trim()).toBeGreaterThan(0), 5000);
});

describe('host buffers', () => {
  test('are read into, written from, and detached on dispose', async () => {
    await using device = await openDevice('cpu');
    const host = await device.hostBuffer(4 * 1000);
    const array = new Float32Array(host.buffer).map((_, i) => i);
    const view = new Float32Array(host.buffer, 400, 300).fill(5);
    const x = device.empty([300]).write(view);
    await device.stream.mark();
    view.fill(0);
    expect(await x.read({ into: view })).toBe(view);
    expect(view.every((v) => v === 5)).toBe(true);
    expect(array.length).toBe(1000);
    host.dispose();
    host.dispose();
    expect([host.disposed, host.buffer.byteLength, view.length]).toEqual([true, 0, 0]);
    await expect(x.read({ into: view })).rejects.toEqual(refused('SHAPE', /into has 0 elements, expected 300/));
  });

  test('under a tensor, or marked by somebody else, can be disposed of', async () => {
    await using device = await openDevice('cpu');
    const host = await device.hostBuffer(64);
    const x = device.fromExternal(new Float32Array(host.buffer).fill(6));
    const hash = x.hash();
    host.dispose();
    expect(host.buffer.byteLength).toBe(0);
    expect(await hash).toMatch(/^[0-9a-f]{16}$/);
    await expect(x.read()).rejects.toEqual(refused('DISPOSED', /detached/));
    x.dispose();
    const marked = await device.hostBuffer(64);
    markAsUntransferable(marked.buffer);
    marked.dispose();
    expect(marked.disposed).toBe(true);
  });

  test('give their memory back at once when disposed of', async () => {
    await using device = await openDevice('cpu');
    const hosts = await Promise.all([1, 2, 3].map((n) => device.hostBuffer(n * 1000)));
    const held = native().counters().hostBuffers;
    for (const host of hosts) host.dispose();
    await vi.waitFor(() => expect(held - native().counters().hostBuffers).toBeGreaterThanOrEqual(3), 5000);
  });

  test('cannot be transferred from under queued work', async () => {
    await using device = await openDevice('cpu');
    using host = await device.hostBuffer(4096);
    const before = new Uint8Array(host.buffer).fill(9);
    try {
      structuredClone(before, { transfer: [host.buffer] });
    } catch (error) {
      expect((error as Error).name).toBe('DataCloneError');
    }
    expect(before.length).toBe(4096);
  });

  test('read({ into }) takes nothing else', async () => {
    await using device = await openDevice('cpu');
    const x = device.full([4], 2, 'bf16');
    using host = await device.hostBuffer(64);
    await expect(x.read({ into: new Float32Array(4) })).rejects.toEqual(refused('ARGUMENT', /device\.hostBuffer\(\)/));
    await expect(x.read({ into: new Int32Array(host.buffer, 0, 4) })).rejects.toEqual(
      refused('DTYPE', /into is Int32Array, expected Float32Array/),
    );
    await expect(x.read({ into: new Float32Array(host.buffer, 0, 5) })).rejects.toEqual(refused('SHAPE', /expected 4/));
    const raw = new Uint16Array(host.buffer, 0, 4);
    expect(await x.read({ raw: true, into: raw })).toEqual(Uint16Array.of(0x4000, 0x4000, 0x4000, 0x4000));
  });

  test.each([0, -1, Number.NaN, 2 ** 53, 1.5, '8', undefined])('of %s bytes are refused', async (bytes) => {
    await using device = await openDevice('cpu');
    await expect(device.hostBuffer(bytes as number)).rejects.toEqual(refused('ARGUMENT', /^hostBuffer: bytes is /));
  });
});

describe('memory of the caller', () => {
  test('stays in place while a tensor uses it', async () => {
    await using device = await openDevice('cpu');
    const array = Float32Array.of(1, 2, 3);
    const x = device.fromExternal(array);
    const { buffer } = array;
    const ways: (() => void)[] = [() => structuredClone(array, { transfer: [buffer] })];
    if ('transfer' in buffer) ways.push(() => (buffer as unknown as { transfer(): void }).transfer());
    for (const way of ways) {
      try {
        way();
      } catch (error) {
        expect(['DataCloneError', 'TypeError']).toContain((error as Error).name);
      }
      expect(array).toEqual(Float32Array.of(1, 2, 3));
    }
    expect(await x.read()).toEqual(array);
  });

  test('that was detached all the same is refused', async () => {
    await using device = await openDevice('cpu');
    const array = Float32Array.of(1);
    const x = device.fromExternal(array, [1, 1]);
    const plan = gemm.bind({ x, w: device.full([1, 1], 1) });
    plan.enqueue();
    await device.stream.mark();
    const { transfer } = ArrayBuffer.prototype as { transfer?: () => ArrayBuffer };
    if (Number.parseInt(process.versions.node, 10) >= 24) {
      // Node refuses that itself.
      expect(() => transfer!.call(array.buffer)).toThrow(TypeError);
      return;
    }
    if (transfer) transfer.call(array.buffer);
    else native().detach(array.buffer);
    await expect(x.read()).rejects.toEqual(refused('DISPOSED', /detached/));
    expect(() => plan.enqueue()).toThrow(refused('DISPOSED', /detached/));
  });

  test('may be shared memory, but not resizable', async () => {
    await using device = await openDevice('cpu');
    const shared = new Float32Array(new SharedArrayBuffer(16)).fill(3);
    expect(await device.fromExternal(shared).read()).toEqual(Float32Array.of(3, 3, 3, 3));
    const Resizable = ArrayBuffer as unknown as new (bytes: number, options: { maxByteLength: number }) => ArrayBuffer;
    const resizable = new Float32Array(new Resizable(16, { maxByteLength: 32 }));
    expect(() => device.fromExternal(resizable)).toThrow(refused('ARGUMENT', /resizable/));
  });

  test('an address needs an owner, alignment, and to be one', async () => {
    await using device = await openDevice('cpu');
    for (const pointer of [0n, -8n, 6n, 2n ** 64n, 8, '8'])
      expect(() => device.fromPointer(pointer as bigint, [2], 'f32', {})).toThrow(
        refused('ARGUMENT', /^fromPointer: pointer is .*, expected a bigint above 0, aligned to 4 bytes, with 8 bytes/),
      );
    expect(() => device.fromPointer(8n, [2], 'f32', null as never)).toThrow(refused('ARGUMENT', /owner is null/));
    expect(() => device.fromPointer(8n, [-2], 'f32', {})).toThrow(refused('SHAPE', /^fromPointer/));
  });
});

describe('affinity', () => {
  test('is one thread for each CPU unless said otherwise', async () => {
    await using device = await openDevice('cpu', { affinity: [0] });
    expect(device.info.threads).toBe(1);
    await using both = await openDevice('cpu', { affinity: [0], threads: 2 });
    expect(both.info.threads).toBe(2);
    const x = both.random([300, 300]);
    const { y } = gemm({ x, w: x });
    expect(await y.hash()).toBe(await gemm({ x: x.contiguous(), w: x }).y.hash());
  });

  test.each([[[]], [[-1]], [[0.5]], ['0'], [[2 ** 20]], [null]])('%j is refused', async (affinity) => {
    await expect(openDevice('cpu', { affinity: affinity as number[] })).rejects.toEqual(
      refused('ARGUMENT', /^openDevice: affinity is .*, expected 1 to 1024 CPU numbers/),
    );
  });

  test('to a CPU that is not there is refused', async () => {
    await expect(openDevice('cpu', { affinity: [60_000] })).rejects.toEqual(
      refused('ARGUMENT', /affinity has CPU 60000/),
    );
  });
});
