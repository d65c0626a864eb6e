// compressed-tensors, format pack-quantized: weight_packed [rows, k / 8], eight elements along k to a word, low bits first, stored
// plus 8; weight_scale [rows, groups] ([rows, 1] per channel); weight_zero_point, where weights are not symmetric, [rows / 8, groups]
// packed along rows and stored plus 8, or [rows, groups] as signed bytes; weight_shape [rows, k]; weight_g_idx [k] of activation order.
//   weight[r, i] = weight_scale[r, g] * (q[r, i] - zero[r, g])
// Source: https://github.com/vllm-project/compressed-tensors and files that llm-compressor writes.
import type { Quantization } from './config.js';
import { readOrder } from './gptq.js';
import { bytesOf, type Int4Weight, type Layer, packZeros, type Scales } from './int4.js';
import { gatherColumns, inOrder, transposed, transposeWords, unpackWords } from './repack.js';
import { inTurns } from './turns.js';

export async function readCompressed(
  layer: Layer,
  config: Quantization | null,
  signal?: AbortSignal,
): Promise<Int4Weight> {
  const [rows, words] = layer.matrix(layer.typed('weight_packed', 'I32'));
  const k = 8 * words;
  await checkShape(layer, rows, k);
  const [scaleRows, groups] = layer.matrix(layer.tensor('weight_scale'));
  if (scaleRows !== rows) layer.shaped('weight_scale', [rows, groups]);
  const group = layer.group('weight_scale', k, groups, config?.group);
  const perm = layer.has('weight_g_idx') ? await readOrder(layer, 'weight_g_idx', k, groups) : null;
  const stored = await layer.scales('weight_scale');
  const scales: Scales = { ...stored, data: await inTurns(transposed(stored.data, rows, groups), signal) };
  const zeros = layer.has('weight_zero_point')
    ? await inTurns(packZeros(await zeroPoints(layer, rows, groups, signal)), signal)
    : { symmetric: true };
  if (config?.symmetric === false && !layer.has('weight_zero_point')) layer.tensor('weight_zero_point');
  const packed = await layer.words('weight_packed');
  const w = perm ? await inTurns(gatherColumns(packed, { row: words, word: 1 }, words, rows, perm), signal) : packed;
  return {
    w: bytesOf(w),
    scales,
    ...zeros,
    ...(perm && { perm }),
    rows,
    k,
    group,
    source: layer.source('compressed-tensors'),
  };
}

/** weight_shape says how many of the packed elements there are, and by that how wide each is. */
async function checkShape(layer: Layer, rows: number, k: number): Promise<void> {
  const { dtype } = layer.typed('weight_shape', 'I64', 'I32');
  layer.shaped('weight_shape', [2]);
  const { buffer } = await layer.bytes('weight_shape');
  const [n, columns] = dtype === 'I64' ? Array.from(new BigInt64Array(buffer), Number) : [...new Int32Array(buffer)];
  if (n === rows && columns === k) return;
  layer.refuse(
    columns === k / 2 ? 'UNSUPPORTED' : 'SHAPE',
    'weight_shape',
    `is [${n}, ${columns}], expected [${rows}, ${k}] for weight_packed of 4 bits an element`,
  );
}

/** [groups, rows], one to a byte. */
async function zeroPoints(layer: Layer, rows: number, groups: number, signal?: AbortSignal): Promise<Uint8Array> {
  const part = 'weight_zero_point';
  if (layer.typed(part, 'I32', 'I8').dtype === 'I8') {
    layer.shaped(part, [rows, groups]);
    const values = (await layer.bytes(part)).map((zero) => zero + 8);
    const bad = values.findIndex((zero) => zero > 15);
    if (bad >= 0) layer.refuse('FILE', part, `holds ${((values[bad]! - 8) << 24) >> 24}, expected -8 to 7`);
    return inTurns(transposed(values, rows, groups), signal);
  }
  if (rows % 8 !== 0)
    layer.refuse('UNSUPPORTED', part, `is packed for ${rows} rows, expected a multiple of 8 for packed zero points`);
  layer.shaped(part, [rows / 8, groups]);
  const words = await inTurns(transposeWords(await layer.words(part), rows / 8, groups), signal);
  return inTurns(unpackWords(words, inOrder), signal);
}
