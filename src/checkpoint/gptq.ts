// GPTQ and AWQ as their own tools store them: qweight, qzeros, scales, g_idx, eight elements to a 32-bit word.
//
//   GPTQ  qweight [k / 8, rows] along k, qzeros [groups, rows / 8] along rows, low bits first; scales [groups, rows]; g_idx [k]
//         weight[r, i] = scales[g, r] * (q[i, r] - zero[g, r]), g = g_idx[i]; stored is zero - 1 (v1) or zero (v2)
//   AWQ   qweight [k, rows / 8], qzeros [groups, rows / 8], both along rows in the order 0 2 4 6 1 3 5 7; scales [groups, rows]
//
// Source: Frantar et al. 2022 (arXiv 2210.17323), Lin et al. 2023 (2306.00978), and files that AutoGPTQ, GPTQModel and AutoAWQ write.
import { KernwattError } from '../errors.js';
import type { Quantization } from './config.js';
import { bytesOf, type Int4Weight, type Layer, packZeros } from './int4.js';
import {
  awqOrder,
  gatherColumns,
  inOrder,
  sortColumns,
  transposeNibbles,
  transposeWords,
  unpackWords,
} from './repack.js';
import { inTurns } from './turns.js';

/** Whether a GPTQ checkpoint stores zero points less one (v1) or as they are (v2). */
export type CheckpointFormat = 'gptq' | 'gptq_v2';

export async function readGptq(
  layer: Layer,
  config: Quantization | null,
  { checkpointFormat, signal }: { checkpointFormat?: CheckpointFormat | undefined; signal?: AbortSignal | undefined },
): Promise<Int4Weight> {
  const { rows, words, groups } = sizes(layer, 'qweight', 'scales');
  const k = 8 * words;
  const group = layer.group('scales', k, groups, config?.group);
  const perm = layer.has('g_idx') ? await readOrder(layer, 'g_idx', k, groups) : null;
  const stored = await inTurns(unpackWords(await layer.words('qzeros'), inOrder), signal);
  const { values, format } = zeroPoints(layer, stored, config, checkpointFormat);
  const zeros = await inTurns(packZeros(values), signal);
  const scales = await layer.scales('scales');
  const source = await layer.words('qweight');
  const w = await inTurns(
    perm ? gatherColumns(source, { row: 1, word: rows }, words, rows, perm) : transposeWords(source, words, rows),
    signal,
  );
  return { w: bytesOf(w), scales, ...zeros, ...(perm && { perm }), rows, k, group, source: layer.source(format) };
}

/** Sizes of a layer of words along k, checked against each other. */
function sizes(layer: Layer, weight: string, scale: string): { rows: number; words: number; groups: number } {
  const [words, rows] = layer.matrix(layer.typed(weight, 'I32'));
  const [groups, columns] = layer.matrix(layer.tensor(scale));
  if (rows === 2 * columns)
    layer.refuse(
      'UNSUPPORTED',
      weight,
      `has ${rows} columns for ${columns} rows of weights: it is packed for Marlin, expected GPTQ`,
    );
  layer.shaped(scale, [groups, rows]);
  layer.typed('qzeros', 'I32');
  layer.shaped('qzeros', [groups, rows / 8]);
  return { rows, words, groups };
}

/** Where the columns of the sorted weight come from; null where they are sorted as they are, or nothing but -1 is stored. */
export async function readOrder(layer: Layer, part: string, k: number, groups: number): Promise<Int32Array | null> {
  layer.typed(part, 'I32');
  layer.shaped(part, [k]);
  const groupOf = await layer.ints(part);
  if (groupOf.every((g) => g === -1)) return null;
  const perm = sortColumns(groupOf, groups);
  return typeof perm === 'string' ? layer.refuse('FILE', part, perm) : perm;
}

/** Stored zero points as they are meant: less one, 15 standing for 0, in files of v1. */
function zeroPoints(
  layer: Layer,
  stored: Uint8Array,
  config: Quantization | null,
  given: CheckpointFormat | undefined,
): { values: Uint8Array; format: CheckpointFormat } {
  // Settings are known to say gptq of files of either kind, but a symmetric layer, whose zero points are all 8, shows which it is.
  // A quantiser that chooses zero points does not choose the same everywhere.
  const first = stored.every((zero) => zero === stored[0]) ? stored[0] : undefined;
  const shown = config?.symmetric === false ? undefined : first === 7 ? 'gptq' : first === 8 ? 'gptq_v2' : undefined;
  if (config?.symmetric === true && !shown)
    layer.refuse(
      'FILE',
      'qzeros',
      'holds other zero points than 7 alone (v1) or 8 alone (v2), expected that as sym is true',
    );
  if (given && shown && given !== shown)
    layer.refuse(
      'FILE',
      'qzeros',
      `holds ${first} alone, as ${shown} stores symmetric weights, expected ${given} as asked for`,
    );
  const format = shown ?? given ?? config?.checkpointFormat ?? (config ? 'gptq' : undefined);
  if (!format)
    throw new KernwattError(
      'ARGUMENT',
      `${layer.name}: checkpointFormat is not given and no settings beside the file say it, expected 'gptq' or 'gptq_v2'`,
    );
  return { values: format === 'gptq' ? stored.map((zero) => (zero + 1) & 15) : stored, format };
}

export async function readAwq(layer: Layer, config: Quantization | null, signal?: AbortSignal): Promise<Int4Weight> {
  const packing = (name: string) => `is packed for AWQ's ${name} kernels, expected version gemm`;
  if (layer.tensor('qweight').dtype === 'I16') layer.refuse('UNSUPPORTED', 'qweight', packing('gemv_fast'));
  const [k] = layer.matrix(layer.typed('qweight', 'I32'));
  const [groups, rows] = layer.matrix(layer.tensor('scales'));
  if (k === groups) layer.refuse('UNSUPPORTED', 'qweight', packing('gemv'));
  layer.shaped('qweight', [k, rows / 8]);
  layer.typed('qzeros', 'I32');
  layer.shaped('qzeros', [groups, rows / 8]);
  const group = layer.group('scales', k, groups, config?.group);
  const values = await inTurns(unpackWords(await layer.words('qzeros'), awqOrder), signal);
  const zeros = await inTurns(packZeros(values), signal);
  const scales = await layer.scales('scales');
  const w = await inTurns(transposeNibbles(await layer.words('qweight'), k / 8, rows), signal);
  return { w: bytesOf(w), scales, ...zeros, rows, k, group, source: layer.source('awq') };
}
