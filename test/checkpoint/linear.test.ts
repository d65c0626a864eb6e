// Layers of every format on a device: what lies there is what readInt4Linear gives, and nothing stays behind on an error.
import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadInt4Linear, openGguf, openSafetensors, readInt4Linear } from '../../src/checkpoint/index.js';
import { type Device, gemmInt4, openDevice } from '../../src/index.js';
import { librarySearch } from '../../src/library.js';
import { cleanDevice } from './device.js';
import {
  awq,
  blocks,
  compressed,
  gguf,
  gptq,
  halfValue,
  model,
  type Stored,
  scratch,
  truth,
  weights,
} from './files.js';

const folder = scratch();
const layer = 'model.layers.3.mlp.down_proj';
let device: Device;
cleanDevice((opened) => {
  device = opened;
});

const bias = (dtype: string, n: number) => ({
  [`${layer}.bias`]: { dtype, shape: [n], data: new Uint16Array(n).map((_, i) => 0x3c00 + i) },
});
const layers = {
  gptq: truth(24, 128, 4, { actOrder: true }),
  awq: truth(24, 128, 4, { seed: 2 }),
  compressed: truth(24, 128, 4, { seed: 3 }),
  gguf: truth(24, 128, 4, { seed: 4, symmetric: true }),
};
const opened = {
  gptq: () => openSafetensors(model(folder, { ...gptq(layer, layers.gptq, 0), ...bias('F16', 24) })),
  awq: () => openSafetensors(model(folder, awq(layer, layers.awq))),
  compressed: () => openSafetensors(model(folder, compressed(layer, layers.compressed, { zeros: 'packed' }))),
  gguf: () => {
    const path = join(folder, 'x.gguf');
    writeFileSync(path, gguf({ [`${layer}.weight`]: blocks(layers.gguf, 'Q4_0', () => 0) }));
    return openGguf(path);
  },
};
const formats = Object.keys(layers) as (keyof typeof layers)[];

test.each(formats)('%s: gemmInt4 multiplies with the weights of the formula', async (format) => {
  const w = weights(layers[format]);
  const [m, k, rows] = [3, 128, 24];
  const values = Float32Array.from({ length: m * k }, (_, i) => Math.sin(i));
  await using checkpoint = await opened[format]();
  using linear = await loadInt4Linear(checkpoint, layer, { device, checkpointFormat: 'gptq_v2' });
  using x = device.tensor(values, [m, k]);
  using y = gemmInt4({ x, ...linear.operands }).y;
  const got = await y.read();
  for (let i = 0; i < m; ++i)
    for (let r = 0; r < rows; ++r) {
      const terms = Array.from({ length: k }, (_, p) => values[i * k + p]! * w[r * k + p]!);
      if (format === 'gptq') terms.push(halfValue(0x3c00 + r));
      const size = terms.reduce((sum, term) => sum + Math.abs(term), 0);
      const expected = terms.reduce((sum, term) => sum + term, 0);
      expect(Math.abs(got[i * rows + r]! - expected)).toBeLessThan(1e-6 * size);
    }
});

const emulator = librarySearch('emu').some(({ path }) => existsSync(path));
if (!emulator) process.stdout.write('Skipped: layers on an emulated GPU (build it with npm run build:cuda)\n');

test.runIf(emulator).each(formats)('%s: on an emulated GPU the same tensors and products', async (format) => {
  await using gpu = await openDevice('emu');
  await using checkpoint = await opened[format]();
  const products: Float32Array[] = [];
  const stored: unknown[] = [];
  for (const where of [device, gpu]) {
    using linear = await loadInt4Linear(checkpoint, layer, { device: where, checkpointFormat: 'gptq_v2' });
    using x = where.random([3, 128], 'f16', { seed: 9 });
    using y = gemmInt4({ x, ...linear.operands }).y;
    products.push((await y.read()) as Float32Array);
    const tensors = Object.entries(linear.operands).filter(([, tensor]) => tensor !== undefined);
    stored.push(await Promise.all(tensors.map(async ([name, tensor]) => [name, await tensor.read({ raw: true })])));
  }
  expect(stored[1]).toEqual(stored[0]);
  // Sums of 128 products in f32, in two orders, then one rounding to f16 each.
  const largest = Math.max(...products[0]!.map(Math.abs));
  for (const [i, value] of products[1]!.entries())
    expect(Math.abs(value - products[0]![i]!)).toBeLessThanOrEqual(2 ** -10 * largest);
});

test.each(formats)('%s: tensors as in host memory', async (format) => {
  await using checkpoint = await opened[format]();
  const options = { checkpointFormat: 'gptq_v2' } as const;
  const host = await readInt4Linear(checkpoint, layer, options);
  using linear = await loadInt4Linear(checkpoint, layer, { device, ...options });
  const { w, scales, zeros, perm, bias } = linear.operands;
  expect([w.dtype, w.shape, await w.read({ raw: true })]).toEqual(['u4', [24, 128], host.w]);
  expect([scales.dtype, scales.shape, await scales.read({ raw: true })]).toEqual(['f16', [4, 24], host.scales.data]);
  expect(zeros && [zeros.dtype, zeros.shape, await zeros.read({ raw: true })]).toEqual(
    host.zeros && ['u4', [4, 24], host.zeros],
  );
  expect(perm && [perm.shape, await perm.read()]).toEqual(host.perm && [[128], host.perm]);
  expect(bias && [bias.dtype, bias.shape]).toEqual(host.perm && ['f16', [24]]);
  const { rows, k, group, symmetric, source } = host;
  expect(linear).toMatchObject({ rows, k, group, symmetric, source });
  const tensors = Object.values(linear.operands);
  expect(linear.bytes).toBe(tensors.reduce((sum, { bytes }) => sum + bytes, 0));
  linear.dispose();
  linear.dispose();
  expect(tensors.every(({ disposed }) => disposed)).toBe(true);
});

test('a bias that is not one, a file cut off on the way, a device that is closed, an abort', async () => {
  const t = truth(24, 128, 4);
  const options = { device, checkpointFormat: 'gptq_v2' } as const;
  const load = async (more: Record<string, Stored>) => {
    await using checkpoint = await openSafetensors(model(folder, { ...gptq(layer, t, 0), ...more }));
    (await loadInt4Linear(checkpoint, layer, options)).dispose();
  };
  await expect(load(bias('F16', 23))).rejects.toMatchObject({ code: 'ERR_KERNWATT_SHAPE', tensor: `${layer}.bias` });
  await expect(load(bias('I16', 24))).rejects.toMatchObject({ code: 'ERR_KERNWATT_DTYPE', tensor: `${layer}.bias` });
  const path = model(folder, { ...gptq(layer, t, 0), ...bias('F16', 24) });
  await using checkpoint = await openSafetensors(path);
  await expect(loadInt4Linear(checkpoint, layer, { ...options, device: {} as never })).rejects.toMatchObject({
    message: 'loadInt4Linear: device is object, expected what openDevice() gives',
  });
  const reason = new Error('no longer wanted');
  await expect(loadInt4Linear(checkpoint, layer, { ...options, signal: AbortSignal.abort(reason) })).rejects.toBe(
    reason,
  );
  const closed = await openDevice('cpu');
  await closed.close();
  await expect(loadInt4Linear(checkpoint, layer, { ...options, device: closed })).rejects.toMatchObject({
    code: 'ERR_KERNWATT_DISPOSED',
  });
  // The bias is the last tensor of the file, and the last that is read.
  const file = join(path, 'model.safetensors');
  truncateSync(file, statSync(file).size - 1);
  await expect(loadInt4Linear(checkpoint, layer, options)).rejects.toMatchObject({
    code: 'ERR_KERNWATT_FILE',
    tensor: `${layer}.bias`,
  });
});
