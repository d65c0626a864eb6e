// Plain tensors of a checkpoint on a device, and blocks of GGUF dequantised.
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadTensor, openGguf, openSafetensors } from '../../src/checkpoint/index.js';
import type { Device } from '../../src/index.js';
import { cleanDevice } from './device.js';
import { blocks, gguf, halfValue, type Stored, safetensors, scratch, truth, weights } from './files.js';

const folder = scratch();
let device: Device;
cleanDevice((opened) => {
  device = opened;
});

const open = (tensors: Record<string, Stored>, name = 'model.safetensors') => {
  writeFileSync(join(folder, name), safetensors(tensors));
  return openSafetensors(join(folder, name));
};

/** Bit for bit; toEqual takes a minute for a million elements. */
const same = (a: ArrayBufferView, b: ArrayBufferView) =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));

test('every dtype that both have, bit for bit', async () => {
  const bits = Uint8Array.from({ length: 24 }, (_, i) => 37 * i);
  const shapes = {
    F32: [2, 3],
    F16: [3, 4],
    BF16: [12],
    F8_E4M3: [4, 6],
    F8_E5M2: [24],
    I32: [6],
    I8: [2, 12],
    U8: [24],
  };
  const tensors = Object.fromEntries(
    Object.entries(shapes).map(([dtype, shape]) => [dtype, { dtype, shape, data: bits }]),
  );
  await using checkpoint = await open({ ...tensors, scalar: { dtype: 'F32', shape: [], data: Float32Array.of(2.5) } });
  for (const [name, shape] of Object.entries(shapes)) {
    using tensor = await loadTensor(checkpoint, name, { device });
    expect([tensor.dtype.toUpperCase(), tensor.shape]).toEqual([name.replace('_', ''), shape]);
    const raw = await tensor.read({ raw: true });
    expect(new Uint8Array(raw.buffer)).toEqual(bits);
  }
  using scalar = await loadTensor(checkpoint, 'scalar', { device });
  expect([scalar.shape, ...(await scalar.read())]).toEqual([[1], 2.5]);
});

test('one of several pieces, an empty one, and one that is given up', async () => {
  const data = Float32Array.from({ length: 3 * 2 ** 20 + 5 }, (_, i) => i);
  await using checkpoint = await open({
    big: { dtype: 'F32', shape: [data.length], data },
    empty: { dtype: 'F16', shape: [0, 4], data: new Uint16Array() },
  });
  using big = await loadTensor(checkpoint, 'big', { device });
  expect(same(await big.read(), data)).toBe(true);
  using empty = await loadTensor(checkpoint, 'empty', { device });
  expect(empty.shape).toEqual([0, 4]);
  const reason = new Error('no longer wanted');
  await expect(loadTensor(checkpoint, 'big', { device, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});

test('a file that became shorter leaves nothing on the device', async () => {
  const data = new Float32Array(3 * 2 ** 20);
  await using checkpoint = await open({ big: { dtype: 'F32', shape: [data.length], data } }, 'cut.safetensors');
  truncateSync(join(folder, 'cut.safetensors'), 9e6);
  await expect(loadTensor(checkpoint, 'big', { device })).rejects.toMatchObject({
    code: 'ERR_KERNWATT_FILE',
    tensor: 'big',
  });
});

test('Q4_0 and Q4_1 with dequantize: d (q - 8) and d q + m', async () => {
  // 20480 blocks are more than one piece.
  const t = truth(640, 1024, 32, { symmetric: true });
  const path = join(folder, 'blocks.gguf');
  writeFileSync(path, gguf({ a: blocks(t, 'Q4_0', () => 0), b: blocks(t, 'Q4_1', () => 0x3001) }));
  await using checkpoint = await openGguf(path);
  using a = await loadTensor(checkpoint, 'a', { device, dequantize: 'f32' });
  expect(a.shape).toEqual([640, 1024]);
  expect(same(await a.read(), Float32Array.from(weights(t)))).toBe(true);
  using b = await loadTensor(checkpoint, 'b', { device, dequantize: 'f32' });
  const minimum = halfValue(0x3001);
  const expected = Float32Array.from({ length: 640 * 1024 }, (_, e) => {
    const [r, i] = [Math.floor(e / 1024), e % 1024];
    return halfValue(t.scale[Math.floor(i / 32)]![r]!) * t.q[r]![i]! + minimum;
  });
  expect(same(await b.read(), expected)).toBe(true);
  using half = await loadTensor(checkpoint, 'b', { device, dequantize: 'bf16' });
  using rounded = device.tensor(expected, [640, 1024], 'bf16');
  expect(same(await half.read({ raw: true }), await rounded.read({ raw: true }))).toBe(true);
});

test('what has no such type, and options that do not fit', async () => {
  await using checkpoint = await open({
    long: { dtype: 'I64', shape: [1], data: BigInt64Array.of(1n) },
    plain: { dtype: 'F16', shape: [1], data: Uint16Array.of(1) },
  });
  const refused = (message: RegExp, code = 'UNSUPPORTED') =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: expect.stringMatching(message) });
  await expect(loadTensor(checkpoint, 'long', { device })).rejects.toThrow(refused(/long is I64, expected F32, F16/));
  await expect(loadTensor(checkpoint, 'plain', { device, dequantize: 'f32' })).rejects.toThrow(
    refused(/plain is F16, expected Q4_0 or Q4_1/),
  );
  await expect(loadTensor(checkpoint, 'plain', { device, dequantize: 'i8' as never })).rejects.toThrow(
    refused(/loadTensor: dequantize is i8, expected f32, bf16 or f16/, 'ARGUMENT'),
  );
  await expect(loadTensor(checkpoint, 'plain', { device: {} as never })).rejects.toThrow(
    refused(/loadTensor: device is object, expected what openDevice\(\) gives/, 'ARGUMENT'),
  );
  writeFileSync(
    join(folder, 'q.gguf'),
    gguf({ q: blocks(truth(1, 32, 1), 'Q4_0', () => 0), k: { type: 12, shape: [256], data: new Uint8Array(144) } }),
  );
  await using file = await openGguf(join(folder, 'q.gguf'));
  await expect(loadTensor(file, 'q', { device })).rejects.toThrow(refused(/q is Q4_0, expected the option dequantize/));
  await expect(loadTensor(file, 'k', { device })).rejects.toThrow(refused(/k is Q4_K, expected F32/));
});
