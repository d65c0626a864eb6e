// Importers against the published formulas: the weights of a layer packed by hand are, element by element, those that come out.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  type Checkpoint,
  type Int4Weight,
  openGguf,
  openSafetensors,
  readInt4Linear,
} from '../../src/checkpoint/index.js';
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
const nibble = (bytes: Uint8Array, e: number) => (bytes[e >> 1]! >> (4 * (e & 1))) & 15;

/** By the contract of gemm_int4, into the columns of the layer. */
function decode({ w, scales, zeros, perm, rows, k, group }: Int4Weight): number[] {
  const out = new Array<number>(rows * k);
  for (let r = 0; r < rows; ++r)
    for (let p = 0; p < k; ++p) {
      const e = Math.floor(p / group) * rows + r;
      const code = nibble(w, r * k + p) - (zeros ? nibble(zeros, e) : 8);
      const bits = scales.data[e]!;
      const scale = scales.dtype === 'f16' ? halfValue(bits) : scales.dtype === 'f32' ? bits : bfloat(bits);
      out[r * k + (perm ? perm[p]! : p)] = code * scale;
    }
  return out;
}
const bfloat = (bits: number) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;

async function withModel<T>(
  tensors: Record<string, Stored>,
  settings: object | undefined,
  use: (checkpoint: Checkpoint) => Promise<T>,
): Promise<T> {
  await using checkpoint = await openSafetensors(model(folder, tensors, settings));
  return await use(checkpoint);
}
const layer = 'model.layers.0.self_attn.q_proj';
const read = (tensors: Record<string, Stored>, settings?: object, options?: Parameters<typeof readInt4Linear>[2]) =>
  withModel(tensors, settings, (checkpoint) => readInt4Linear(checkpoint, layer, options));

const gptqSettings = {
  quant_method: 'gptq',
  bits: 4,
  group_size: 32,
  desc_act: false,
  sym: false,
  checkpoint_format: 'gptq',
};

describe('GPTQ', () => {
  // Sizes beside and beyond the tiles of 16 rows and 16 words.
  test.each([
    [8, 32, 1, -1],
    [24, 96, 3, 32],
    [136, 256, 2, 128],
    [16, 544, 17, 32],
  ])(
    '%i rows, %i columns, %i groups: both versions, columns as they come and by activation order',
    async (rows, k, groups, group_size) => {
      for (const actOrder of [false, true])
        for (const [less, checkpoint_format] of [
          [1, 'gptq'],
          [0, 'gptq_v2'],
        ] as const) {
          const t = truth(rows, k, groups, { seed: rows + k, actOrder: actOrder && groups > 1 });
          const settings = { ...gptqSettings, checkpoint_format, group_size, desc_act: actOrder };
          const weight = await read(gptq(layer, t, less), settings);
          expect(weight).toMatchObject({
            rows,
            k,
            group: k / groups,
            symmetric: false,
            source: { format: checkpoint_format, layer },
          });
          expect(weight.perm === undefined).toBe(!actOrder || groups === 1);
          expect(decode(weight)).toEqual(weights(t));
        }
    },
  );

  test('v1 stores 15 for a zero point of 0', async () => {
    const t = truth(8, 32, 1);
    t.zero[0]!.fill(0, 0, 4);
    const tensors = gptq(layer, t, 1);
    expect((tensors[`${layer}.qzeros`]!.data as Uint32Array)[0]! & 0xffff).toBe(0xffff);
    expect(decode(await read(tensors, gptqSettings))).toEqual(weights(t));
  });

  test('symmetric layers show their version, whatever the settings say', async () => {
    const t = truth(16, 64, 2, { symmetric: true });
    for (const [less, format] of [
      [1, 'gptq'],
      [0, 'gptq_v2'],
    ] as const)
      for (const claim of ['gptq', 'gptq_v2', undefined])
        for (const sym of [true, undefined]) {
          const weight = await read(gptq(layer, t, less), { ...gptqSettings, sym, checkpoint_format: claim });
          expect(weight).toMatchObject({ symmetric: true, source: { format } });
          expect(weight.zeros).toBeUndefined();
          expect(decode(weight)).toEqual(weights(t));
        }
  });

  test('an option decides where nothing shows it, against the settings too', async () => {
    const t = truth(16, 64, 2);
    const v2 = await read(gptq(layer, t, 0), gptqSettings, { checkpointFormat: 'gptq_v2' });
    expect(decode(v2)).toEqual(weights(t));
    expect(decode(await read(gptq(layer, t, 1), undefined, { checkpointFormat: 'gptq' }))).toEqual(weights(t));
    const { checkpoint_format, ...old } = gptqSettings;
    expect(decode(await read(gptq(layer, t, 1), old))).toEqual(weights(t));
    await expect(read(gptq(layer, t, 1))).rejects.toMatchObject({
      code: 'ERR_KERNWATT_ARGUMENT',
      message: `${layer}: checkpointFormat is not given and no settings beside the file say it, expected 'gptq' or 'gptq_v2'`,
    });
  });

  test('settings in quantize_config.json, and of modules one by one', async () => {
    const t = truth(16, 64, 2);
    const path = model(folder, gptq(layer, t, 0));
    const settings = {
      bits: 4,
      group_size: 128,
      sym: true,
      checkpoint_format: 'gptq_v2',
      dynamic: { '+:q_proj': { group_size: 32, sym: false } },
    };
    writeFileSync(join(path, 'config.json'), '{"model_type":"llama"}');
    writeFileSync(join(path, 'quantize_config.json'), JSON.stringify(settings));
    await using checkpoint = await openSafetensors(path);
    expect(await checkpoint.quantization()).toMatchObject({
      method: 'gptq',
      group: null,
      symmetric: null,
      checkpointFormat: 'gptq_v2',
    });
    expect(decode(await readInt4Linear(checkpoint, layer))).toEqual(weights(t));
  });

  test('without g_idx, and with scales of bf16', async () => {
    const t = truth(16, 64, 2);
    const { [`${layer}.g_idx`]: _, ...tensors } = gptq(layer, t, 0);
    tensors[`${layer}.scales`] = { ...tensors[`${layer}.scales`]!, dtype: 'BF16' };
    const weight = await read(tensors, { ...gptqSettings, checkpoint_format: 'gptq_v2' });
    expect(weight.scales.dtype).toBe('bf16');
    expect(decode(weight)).toEqual(weights(t, bfloat));
  });
});

describe('AWQ', () => {
  test.each([
    [8, 32, 1, -1],
    [24, 96, 3, 32],
    [144, 160, 5, 32],
    [16, 256, 2, 128],
  ])('%i rows, %i columns, %i groups', async (rows, k, groups, group_size) => {
    const t = truth(rows, k, groups, { seed: rows });
    const settings = { quant_method: 'awq', bits: 4, group_size, zero_point: true, version: 'GEMM' };
    const weight = await read(awq(layer, t), settings);
    expect(weight).toMatchObject({ rows, k, group: k / groups, symmetric: false, source: { format: 'awq' } });
    expect(decode(weight)).toEqual(weights(t));
    // Told by its shapes alone, and by the settings of the method's own tool.
    expect(await read(awq(layer, t))).toMatchObject({ w: weight.w, zeros: weight.zeros });
    const path = model(folder, awq(layer, t));
    writeFileSync(
      join(path, 'quant_config.json'),
      JSON.stringify({ w_bit: 4, q_group_size: group_size, zero_point: true }),
    );
    await using checkpoint = await openSafetensors(path);
    expect((await readInt4Linear(checkpoint, layer)).w).toEqual(weight.w);
  });
});

describe('compressed-tensors', () => {
  const settings = (weights: object) => ({
    quant_method: 'compressed-tensors',
    format: 'pack-quantized',
    config_groups: { group_0: { targets: ['Linear'], weights: { num_bits: 4, type: 'int', ...weights } } },
  });
  test.each([
    [5, 32, 1],
    [24, 96, 3],
    [40, 256, 2],
  ])('%i rows, %i columns, %i groups, symmetric', async (rows, k, groups) => {
    const t = truth(rows, k, groups, { seed: k, symmetric: true });
    const strategy = groups === 1 ? { strategy: 'channel' } : { strategy: 'group', group_size: k / groups };
    const weight = await read(compressed(layer, t), settings({ ...strategy, symmetric: true }));
    expect(weight).toMatchObject({
      rows,
      k,
      group: k / groups,
      symmetric: true,
      source: { format: 'compressed-tensors' },
    });
    expect(decode(weight)).toEqual(weights(t));
    expect((await read(compressed(layer, t))).w).toEqual(weight.w);
  });

  test.each(['packed', 'bytes'] as const)('zero points, %s, and activation order', async (zeros) => {
    for (const actOrder of [false, true]) {
      const t = truth(24, 128, 4, { actOrder });
      const weight = await read(
        compressed(layer, t, { zeros, gIdx: actOrder }),
        settings({ strategy: 'group', group_size: 32, symmetric: false }),
      );
      expect(weight.symmetric).toBe(false);
      expect(weight.perm === undefined).toBe(!actOrder);
      expect(decode(weight)).toEqual(weights(t));
    }
  });

  test('weight_g_idx of -1 alone means none', async () => {
    const t = truth(8, 64, 2, { symmetric: true });
    const tensors = compressed(layer, t, { gIdx: true });
    (tensors[`${layer}.weight_g_idx`]!.data as Int32Array).fill(-1);
    const weight = await read(tensors);
    expect(weight.perm).toBeUndefined();
    expect(decode(weight)).toEqual(weights(t));
  });
});

describe('GGUF', () => {
  const open = (tensors: Parameters<typeof gguf>[0]) => {
    const path = join(folder, 'blocks.gguf');
    writeFileSync(path, gguf(tensors));
    return openGguf(path);
  };
  const never = () => 0;
  test.each([
    [1, 32],
    [7, 96],
    [40, 256],
  ])('Q4_0, %i rows, %i columns', async (rows, k) => {
    const t = truth(rows, k, k / 32, { symmetric: true });
    await using checkpoint = await open({ 'blk.0.attn_q.weight': blocks(t, 'Q4_0', never) });
    const weight = await readInt4Linear(checkpoint, 'blk.0.attn_q');
    expect(weight).toMatchObject({ rows, k, group: 32, symmetric: true, source: { format: 'Q4_0' } });
    expect(decode(weight)).toEqual(weights(t));
  });

  test('Q4_1 whose minima are whole zero points', async () => {
    const t = truth(7, 96, 3);
    // Powers of two, so that d times a zero point is a number of f16 too.
    for (const scales of t.scale) scales.fill(0x2c00);
    const minimum = (_: number, zero: number) =>
      zero === 0
        ? 0x8000
        : 0x8000 +
          ((Math.floor(Math.log2(zero)) - 4 + 15) << 10) +
          (zero / 2 ** Math.floor(Math.log2(zero)) - 1) * 1024;
    await using checkpoint = await open({ 'blk.0.attn_q.weight': blocks(t, 'Q4_1', minimum) });
    const weight = await readInt4Linear(checkpoint, 'blk.0.attn_q');
    expect(weight).toMatchObject({ rows: 7, k: 96, group: 32, symmetric: false, source: { format: 'Q4_1' } });
    expect(decode(weight)).toEqual(weights(t));
  });

  test('Q4_1 otherwise is refused, never rounded', async () => {
    await using checkpoint = await open({ 'blk.0.attn_q.weight': blocks(truth(4, 64, 2), 'Q4_1', () => 0xb001) });
    await expect(readInt4Linear(checkpoint, 'blk.0.attn_q')).rejects.toMatchObject({
      code: 'ERR_KERNWATT_UNSUPPORTED',
      tensor: 'blk.0.attn_q.weight',
      message: expect.stringMatching(
        /blk\.0\.attn_q\.weight is Q4_1 with d = .*, m = .* in row 0, columns 0 on: no whole zero point gives that/,
      ),
    });
  });
});

test('a layer of a real size leaves the event loop alone and can be given up', async () => {
  const [rows, k] = [4096, 4096];
  const words = (n: number) => new Uint32Array(n).map((_, i) => Math.imul(i, 0x9e3779b1));
  const tensors: Record<string, Stored> = {
    [`${layer}.qweight`]: { dtype: 'I32', shape: [k, rows / 8], data: words((k * rows) / 8) },
    [`${layer}.qzeros`]: { dtype: 'I32', shape: [k / 128, rows / 8], data: words((k * rows) / 1024) },
    [`${layer}.scales`]: { dtype: 'F16', shape: [k / 128, rows], data: new Uint16Array((k * rows) / 128) },
  };
  await withModel(tensors, undefined, async (checkpoint) => {
    let turns = 0;
    const timer = setInterval(() => ++turns, 1);
    const { w } = await readInt4Linear(checkpoint, layer);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(3);
    // Element (r, p) of a few, by the formula.
    const order = [0, 2, 4, 6, 1, 3, 5, 7];
    for (const [r, p] of [
      [0, 0],
      [4095, 4095],
      [1234, 2345],
      [7, 4088],
    ] as const) {
      const word = Math.imul(p * (rows / 8) + (r >> 3), 0x9e3779b1);
      expect(nibble(w, r * k + p)).toBe((word >>> (4 * order.indexOf(r % 8))) & 15);
    }
    const reason = new Error('no longer wanted');
    const abort = new AbortController();
    const given = readInt4Linear(checkpoint, layer, { signal: abort.signal });
    setTimeout(() => abort.abort(reason), 5);
    await expect(given).rejects.toBe(reason);
  });
});
