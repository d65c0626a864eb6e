// From a layer's name to its 4-bit weight in host memory, whatever format stores it.
import { KernwattError } from '../errors.js';
import { nearest } from '../nearest.js';
import { formatShape } from '../shape.js';
import { isBlockType, readBlocks } from './blocks.js';
import { type Checkpoint, checkCheckpoint } from './checkpoint.js';
import { readCompressed } from './compressed.js';
import type { Quantization } from './config.js';
import { CheckpointError } from './error.js';
import { type CheckpointFormat, readAwq, readGptq } from './gptq.js';
import { type Int4Weight, Layer } from './int4.js';

export interface Int4Options {
  /**
   * For GPTQ: whether zero points are stored less one (`gptq`, v1) or as they are (`gptq_v2`). Default: what symmetric layers show, else
   * what the settings beside the file say, which writers of both kinds have got wrong.
   */
  checkpointFormat?: CheckpointFormat | undefined;
  signal?: AbortSignal | undefined;
}

/** The method of a layer in files of safetensors, by the tensors that it has. */
function methodOf(layer: Layer, config: Quantization | null): Quantization['method'] {
  if (layer.has('weight_packed')) return 'compressed-tensors';
  if (layer.has('qweight')) {
    if (config?.method === 'awq' || config?.method === 'gptq') return config.method;
    // AWQ packs rows, so that qweight's are an eighth of the scales'; for gemv both begin with the rows, gemv_fast stores 16 bits.
    const [{ shape, dtype }, { shape: scales }] = [layer.tensor('qweight'), layer.tensor('scales')];
    return dtype === 'I16' || shape[0] === scales[0] || shape[1] === scales[1]! / 8 ? 'awq' : 'gptq';
  }
  if (layer.has('B') && layer.has('s'))
    layer.refuse('UNSUPPORTED', 'B', 'is packed for Marlin, expected qweight or weight_packed');
  if (layer.has('weight')) {
    const { dtype, shape } = layer.tensor('weight');
    layer.refuse(
      'UNSUPPORTED',
      'weight',
      `is ${dtype} ${formatShape(shape)}, expected qweight or weight_packed of 4 bits; loadTensor() reads plain ones`,
    );
  }
  return noLayer(layer);
}

function noLayer({ checkpoint, name }: Layer): never {
  const layers = new Set([...checkpoint.tensors.keys()].map((tensor) => tensor.slice(0, tensor.lastIndexOf('.'))));
  const like = nearest(name, layers);
  throw new CheckpointError(
    'FILE',
    { file: checkpoint.path, tensor: name },
    `is not among its layers, expected one of them${like ? `; did you mean ${like}?` : ''}`,
  );
}

async function readLayer(layer: Layer, options: Int4Options): Promise<Int4Weight> {
  const { checkpoint } = layer;
  if (checkpoint.format === 'gguf') {
    if (!layer.has('weight')) noLayer(layer);
    const { dtype } = layer.tensor('weight');
    if (isBlockType(dtype)) return readBlocks(layer, dtype, options.signal);
    return layer.refuse('UNSUPPORTED', 'weight', `is ${dtype}, expected Q4_0 or Q4_1`);
  }
  const config = await checkpoint.quantization();
  const method = methodOf(layer, config);
  if (config && config.method !== method)
    throw new CheckpointError(
      'FILE',
      checkpoint.place(layer.name),
      `has the tensors of ${method}, expected those of ${config.method}, as ${config.file} says`,
    );
  if (method === 'gptq') return readGptq(layer, config, options);
  if (method === 'awq') return readAwq(layer, config, options.signal);
  return readCompressed(layer, config, options.signal);
}

/**
 * A linear layer's 4-bit weight in host memory, in the layout of gemmInt4: GPTQ (v1 and v2), AWQ (gemm), compressed-tensors
 * (pack-quantized), GGUF Q4_0, and Q4_1 where its minima are whole zero points. Codes, scales and zero points are exactly the file's.
 * Large layers take tens of milliseconds, with turns of the event loop in between.
 * @param name of the layer: `model.layers.0.self_attn.q_proj`, `blk.0.attn_q`.
 * @throws {CheckpointError} `UNSUPPORTED` for other formats, widths and packings; `FILE`, `SHAPE`, `DTYPE` for layers that are missing
 *   or contradict themselves; KernwattError `ARGUMENT` where nothing tells GPTQ's versions apart; the signal's reason.
 */
export async function readInt4Linear(
  checkpoint: Checkpoint,
  name: string,
  options: Int4Options = {},
): Promise<Int4Weight> {
  checkCheckpoint('readInt4Linear', checkpoint);
  const { checkpointFormat: format } = options;
  if (format !== undefined && format !== 'gptq' && format !== 'gptq_v2')
    throw new KernwattError(
      'ARGUMENT',
      `readInt4Linear: checkpointFormat is ${String(format)}, expected 'gptq' or 'gptq_v2'`,
    );
  return readLayer(new Layer(checkpoint, name, options), options);
}
