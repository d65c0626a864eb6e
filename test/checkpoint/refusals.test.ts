// Layers that contradict themselves or their settings, and formats that are not read: which error, of which file and tensor.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { CheckpointError, openGguf, openSafetensors, readInt4Linear } from '../../src/checkpoint/index.js';
import { awq, compressed, gguf, gptq, model, type Stored, scratch, truth } from './files.js';

const folder = scratch();
const layer = 'model.layers.0.mlp.up_proj';
const refusal = async (tensors: Record<string, Stored>, settings?: object, options = {}) => {
  await using checkpoint = await openSafetensors(model(folder, tensors, settings));
  const error = await readInt4Linear(checkpoint, layer, options).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(CheckpointError);
  const { code, file, tensor, message } = error as CheckpointError;
  expect(message.startsWith(`${file}: `)).toBe(true);
  expect(message).toMatch(/expected/);
  return `${code.replace('ERR_KERNWATT_', '')} ${tensor?.replace(`${layer}.`, '')} ${message.slice(file.length + 2)}`;
};

const gptqSettings = (more: object = {}) => ({
  quant_method: 'gptq',
  bits: 4,
  group_size: 32,
  sym: false,
  checkpoint_format: 'gptq_v2',
  ...more,
});
const awqSettings = (more: object = {}) => ({ quant_method: 'awq', bits: 4, group_size: 32, version: 'gemm', ...more });
const t = truth(16, 64, 2);
const ours = {
  gptq: () => gptq(layer, t, 0),
  awq: () => awq(layer, t),
  compressed: () => compressed(layer, t, { zeros: 'packed' }),
};
/** With a part of the layer replaced, or left out. */
const but = (format: keyof typeof ours, part: string, change: Partial<Stored> | null): Record<string, Stored> => {
  const { [`${layer}.${part}`]: old, ...rest } = ours[format]();
  return change
    ? { ...rest, [`${layer}.${part}`]: { dtype: 'I32', shape: [], data: new Uint32Array(), ...old, ...change } }
    : rest;
};
const words = (dtype: string, ...shape: number[]) => ({
  dtype,
  shape,
  data: new Uint8Array(shape.reduce((a, b) => a * b, 1) * ({ I32: 4, U8: 1, I16: 2 }[dtype] ?? 2)),
});

describe('a layer is refused', () => {
  test.each<[string, Record<string, Stored>, object | undefined, string | RegExp]>([
    [
      'gptq without scales',
      but('gptq', 'scales', null),
      gptqSettings(),
      /^FILE scales .*scales is not among its 3 tensors/,
    ],
    [
      'gptq without zero points',
      but('gptq', 'qzeros', null),
      gptqSettings(),
      /^FILE qzeros .*qzeros is not among its 3 tensors/,
    ],
    [
      'gptq with scales of whole numbers',
      but('gptq', 'scales', { ...words('U8', 2, 16) }),
      gptqSettings(),
      /^DTYPE scales .*scales is U8, expected F16 or BF16 or F32/,
    ],
    [
      'gptq with scales of another shape',
      but('gptq', 'scales', words('F16', 2, 24)),
      gptqSettings(),
      /^SHAPE scales .*is \[2, 24\], expected \[2, 16\]/,
    ],
    [
      'gptq with zero points of another shape',
      but('gptq', 'qzeros', words('I32', 2, 3)),
      gptqSettings(),
      /^SHAPE qzeros .*is \[2, 3\], expected \[2, 2\]/,
    ],
    [
      'gptq with codes of bytes',
      but('gptq', 'qweight', words('U8', 8, 16)),
      gptqSettings(),
      /^DTYPE qweight .*is U8, expected I32/,
    ],
    [
      'gptq of three dimensions',
      but('gptq', 'qweight', words('I32', 2, 8, 16)),
      gptqSettings(),
      /^SHAPE qweight .*is \[2, 8, 16\], expected two dimensions/,
    ],
    [
      'gptq of no rows',
      but('gptq', 'qweight', words('I32', 8, 0)),
      gptqSettings(),
      /^SHAPE qweight .*is \[8, 0\], expected two dimensions, neither empty/,
    ],
    [
      'gptq with groups that do not divide k',
      but('gptq', 'scales', words('F16', 3, 16)),
      gptqSettings(),
      /^SHAPE qzeros/,
    ],
    [
      'gptq with groups of other columns than the settings say',
      ours.gptq(),
      gptqSettings({ group_size: 64 }),
      /^SHAPE scales .*has 2 groups for 64 columns, expected 1 of 64 as the settings say/,
    ],
    [
      'gptq with one group too many columns',
      but('gptq', 'g_idx', { data: Int32Array.from({ length: 64 }, (_, i) => +(i > 40)) }),
      gptqSettings(),
      /^FILE g_idx .*has more than 32 columns in group 0, expected 32 in every group/,
    ],
    [
      'gptq with a group that is not there',
      but('gptq', 'g_idx', { data: new Int32Array(64).fill(2) }),
      gptqSettings(),
      /^FILE g_idx .*is 2 for column 0, expected 0 to 1/,
    ],
    [
      'gptq with g_idx of another length',
      but('gptq', 'g_idx', words('I32', 32)),
      gptqSettings(),
      /^SHAPE g_idx .*is \[32\], expected \[64\]/,
    ],
    [
      'gptq whose zero points are not symmetric',
      ours.gptq(),
      gptqSettings({ sym: true }),
      /^FILE qzeros .*holds other zero points than 7 alone \(v1\) or 8 alone \(v2\)/,
    ],
    [
      'gptq packed for Marlin',
      but('gptq', 'qweight', words('I32', 4, 32)),
      gptqSettings(),
      /^UNSUPPORTED qweight .*it is packed for Marlin, expected GPTQ/,
    ],
    [
      'gptq that the settings call awq',
      but('gptq', 'g_idx', null),
      awqSettings(),
      /^SHAPE qweight .*is \[8, 16\], expected \[8, 2\]/,
    ],
    [
      'compressed-tensors that the settings call gptq',
      ours.compressed(),
      gptqSettings(),
      /^FILE model\.layers\.0\.mlp\.up_proj .*has the tensors of compressed-tensors, expected those of gptq, as .*config\.json says/,
    ],
    [
      'Marlin by its own names',
      { [`${layer}.B`]: words('I32', 4, 32), [`${layer}.s`]: words('F16', 2, 16) },
      undefined,
      /^UNSUPPORTED B .*is packed for Marlin, expected qweight or weight_packed/,
    ],
    [
      'awq packed for gemv',
      { ...but('awq', 'qweight', words('I32', 16, 8)), [`${layer}.scales`]: words('F16', 16, 8) },
      undefined,
      /^UNSUPPORTED qweight .*is packed for AWQ's gemv kernels, expected version gemm/,
    ],
    [
      'awq packed for gemv_fast',
      but('awq', 'qweight', words('I16', 4, 64)),
      undefined,
      /^UNSUPPORTED qweight .*gemv_fast kernels/,
    ],
    [
      'awq with zero points of another shape',
      but('awq', 'qzeros', words('I32', 2, 16)),
      awqSettings(),
      /^SHAPE qzeros .*is \[2, 16\], expected \[2, 2\]/,
    ],
    [
      'compressed-tensors of 8 bits',
      but('compressed', 'weight_shape', { data: BigInt64Array.of(16n, 32n) }),
      undefined,
      /^UNSUPPORTED weight_shape .*is \[16, 32\], expected \[16, 64\] for weight_packed of 4 bits/,
    ],
    [
      'compressed-tensors of another shape',
      but('compressed', 'weight_shape', { data: BigInt64Array.of(15n, 64n) }),
      undefined,
      /^SHAPE weight_shape .*is \[15, 64\], expected \[16, 64\]/,
    ],
    [
      'compressed-tensors of 4-bit floats',
      but('compressed', 'weight_packed', words('U8', 16, 32)),
      undefined,
      /^DTYPE weight_packed .*is U8, expected I32/,
    ],
    [
      'compressed-tensors with one scale',
      but('compressed', 'weight_scale', words('F16', 1)),
      undefined,
      /^SHAPE weight_scale .*is \[1\], expected two dimensions/,
    ],
    [
      'compressed-tensors with a zero point out of range',
      but('compressed', 'weight_zero_point', { dtype: 'I8', shape: [16, 2], data: new Int8Array(32).fill(-9, 5, 6) }),
      undefined,
      /^FILE weight_zero_point .*holds -9, expected -8 to 7/,
    ],
    [
      'compressed-tensors without the zero points of its settings',
      but('compressed', 'weight_zero_point', null),
      {
        quant_method: 'compressed-tensors',
        format: 'pack-quantized',
        config_groups: {
          g: { weights: { num_bits: 4, type: 'int', strategy: 'group', group_size: 32, symmetric: false } },
        },
      },
      /^FILE weight_zero_point .*is not among/,
    ],
    [
      'plain',
      { [`${layer}.weight`]: words('F16', 16, 64) },
      undefined,
      /^UNSUPPORTED weight .*is F16 \[16, 64\], expected qweight or weight_packed of 4 bits; loadTensor\(\) reads plain ones/,
    ],
    [
      'that is not there',
      { 'model.layers.0.mlp.up_prof.qweight': words('I32', 8, 16) },
      undefined,
      /^FILE model\.layers\.0\.mlp\.up_proj .*is not among its layers, expected one of them; did you mean model\.layers\.0\.mlp\.up_prof\?/,
    ],
  ])('%s', async (_, tensors, settings, message) => {
    expect(await refusal(tensors, settings)).toMatch(message);
  });

  test('Marlin without settings', async () => {
    expect(await refusal(but('gptq', 'qweight', words('I32', 4, 32)))).toMatch(
      /^UNSUPPORTED qweight .*packed for Marlin/,
    );
  });

  test('symmetric gptq against the version that is asked for', async () => {
    const symmetric = gptq(layer, truth(16, 64, 2, { symmetric: true }), 0);
    expect(await refusal(symmetric, gptqSettings({ sym: true }), { checkpointFormat: 'gptq' })).toMatch(
      /^FILE qzeros .*holds 8 alone, as gptq_v2 stores symmetric weights, expected gptq as asked for/,
    );
  });

  test('groups that are no multiple of 32', async () => {
    expect(await refusal(gptq(layer, truth(16, 96, 6), 0))).toMatch(
      /^UNSUPPORTED scales .*has 6 groups for 96 columns, expected groups of a multiple of 32/,
    );
  });
});

describe('settings are refused', () => {
  const ct = (more: object, weights: object = {}) => ({
    quant_method: 'compressed-tensors',
    format: 'pack-quantized',
    config_groups: {
      group_0: { weights: { num_bits: 4, type: 'int', strategy: 'group', group_size: 32, ...weights } },
    },
    ...more,
  });
  test.each<[object, RegExp]>([
    [gptqSettings({ bits: 8 }), /^UNSUPPORTED.* bits is 8, expected 4/],
    [gptqSettings({ bits: undefined }), /^UNSUPPORTED.* bits is undefined, expected 4/],
    [
      gptqSettings({ checkpoint_format: 'marlin' }),
      /^UNSUPPORTED.* checkpoint_format is "marlin", expected gptq or gptq_v2/,
    ],
    [gptqSettings({ is_marlin_format: true }), /^UNSUPPORTED.* is_marlin_format is true/],
    [gptqSettings({ pack_dtype: 'int16' }), /^UNSUPPORTED.* pack_dtype is "int16", expected int32/],
    [gptqSettings({ group_size: 0 }), /^FILE.* group_size is 0, expected a whole number or -1/],
    [gptqSettings({ sym: 'yes' }), /^FILE.* sym is "yes", expected true or false/],
    [awqSettings({ version: 'gemv' }), /^UNSUPPORTED.* version is "gemv", expected gemm/],
    [awqSettings({ version: 'gemv_fast' }), /^UNSUPPORTED.* version is "gemv_fast", expected gemm/],
    [awqSettings({ version: 'marlin' }), /^UNSUPPORTED.* version is "marlin", expected gemm/],
    [awqSettings({ bits: 3 }), /^UNSUPPORTED.* bits is 3, expected 4/],
    [ct({ format: 'marlin-24' }), /^UNSUPPORTED.* format is "marlin-24", expected pack-quantized/],
    [ct({}, { num_bits: 8 }), /^UNSUPPORTED.* num_bits is 8, expected 4/],
    [ct({}, { type: 'float' }), /^UNSUPPORTED.* type is "float", expected "int"/],
    [ct({}, { strategy: 'tensor' }), /^UNSUPPORTED.* strategy is "tensor", expected "group" or "channel"/],
    [
      { quant_method: 'bitsandbytes', load_in_4bit: true },
      /^UNSUPPORTED.* quant_method is "bitsandbytes", expected gptq, awq or compressed-tensors/,
    ],
  ])('%j', async (settings, message) => {
    expect(await refusal(ours.gptq(), settings)).toMatch(message);
  });

  test('that are no JSON, or no object, with the name of the file; plain tensors are read all the same', async () => {
    for (const [text, message] of [
      ['{', /config\.json: file is not JSON/],
      ['{"quantization_config": 4}', /config\.json: quantization_config is no object/],
    ] as const) {
      const path = model(folder, { [`${layer}.weight`]: words('F16', 1) });
      writeFileSync(join(path, 'config.json'), text);
      await using checkpoint = await openSafetensors(path);
      await expect(checkpoint.quantization()).rejects.toThrow(message);
      expect(await checkpoint.read(`${layer}.weight`)).toHaveLength(2);
    }
  });
});

describe('arguments and GGUF', () => {
  test('a type that is not read, with its name; a layer that is not there', async () => {
    const path = join(mkdtempSync(join(folder, 'gguf-')), 'x.gguf');
    writeFileSync(
      path,
      gguf({
        'blk.0.ffn_up.weight': { type: 14, shape: [1, 256], data: new Uint8Array(210) },
        odd: { type: 99, shape: [3], data: new Uint8Array(3) },
      }),
    );
    await using checkpoint = await openGguf(path);
    expect(checkpoint.tensors.get('odd')!.dtype).toBe('type 99');
    await expect(readInt4Linear(checkpoint, 'blk.0.ffn_up')).rejects.toMatchObject({
      code: 'ERR_KERNWATT_UNSUPPORTED',
      tensor: 'blk.0.ffn_up.weight',
      message: `${path}: blk.0.ffn_up.weight is Q6_K, expected Q4_0 or Q4_1`,
    });
    await expect(readInt4Linear(checkpoint, 'blk.0.ffn_op')).rejects.toThrow(/did you mean blk\.0\.ffn_up\?/);
  });

  test('no checkpoint, or no version of GPTQ', async () => {
    await expect(readInt4Linear({} as never, layer)).rejects.toMatchObject({
      message: 'readInt4Linear: checkpoint is object, expected what openSafetensors() or openGguf() gives',
    });
    await using checkpoint = await openSafetensors(model(folder, ours.gptq()));
    await expect(readInt4Linear(checkpoint, layer, { checkpointFormat: 'v2' as never })).rejects.toMatchObject({
      message: "readInt4Linear: checkpointFormat is v2, expected 'gptq' or 'gptq_v2'",
    });
  });
});
