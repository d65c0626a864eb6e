// How a checkpoint says that it was quantised: `quantization_config` of config.json, or a file of its own beside the tensors.
import { join } from 'node:path';
import { CheckpointError } from './error.js';
import { isObject, type JsonObject, parseObject } from './json.js';
import { SourceFile } from './source.js';

export interface Quantization {
  method: 'gptq' | 'awq' | 'compressed-tensors';
  /** Columns that share a scale; -1: all of a row; null where the file does not say, or layers differ. */
  group: number | null;
  /** Whether every zero point is 8; null where the file does not say. */
  symmetric: boolean | null;
  /** GPTQ alone: whether stored zero points are one too small (`gptq`) or as they are (`gptq_v2`). Writers of either have stored `gptq`. */
  checkpointFormat: 'gptq' | 'gptq_v2' | null;
  /** The file that says so. */
  file: string;
}

/** Bytes that a file of settings may have. */
const mostBytes = 16 * 2 ** 20;

/** Where settings may stand, in the order in which they are looked for, and how to find them there. */
const places: readonly [name: string, pick: (settings: JsonObject) => unknown][] = [
  ['config.json', ({ quantization_config, compression_config }) => quantization_config ?? compression_config],
  ['quantize_config.json', (settings) => ({ quant_method: 'gptq', ...settings })],
  ['quant_config.json', (settings) => ({ quant_method: 'awq', ...settings })],
];

/** @internal Null where no file of `folder` has settings of a quantiser. */
export async function readQuantization(folder: string): Promise<Quantization | null> {
  for (const [name, pick] of places) {
    const file = join(folder, name);
    const settings = await readSettings(file);
    const found = settings && pick(settings);
    if (found === undefined || found === null) continue;
    if (!isObject(found)) throw new CheckpointError('FILE', { file }, 'quantization_config is no object, expected one');
    return judge(found, file);
  }
  return null;
}

async function readSettings(file: string): Promise<JsonObject | undefined> {
  const source = await SourceFile.open(file).catch((error: CheckpointError) => {
    if ((error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!source) return undefined;
  try {
    if (source.size > mostBytes)
      throw new CheckpointError('FILE', { file }, `has ${source.size} bytes, expected at most ${mostBytes}`);
    return parseObject(file, 'file', await source.read(0, source.size));
  } finally {
    await source.close();
  }
}

/** @internal What settings mean, checked. */
export function judge(settings: JsonObject, file: string): Quantization {
  const method = settings.quant_method;
  if (method === 'gptq') return gptq(settings, file);
  if (method === 'awq') return awq(settings, file);
  if (method === 'compressed-tensors') return compressedTensors(settings, file);
  return expected(file, 'quant_method', method, 'gptq, awq or compressed-tensors');
}

function expected(file: string, name: string, value: unknown, wanted: string): never {
  throw new CheckpointError('UNSUPPORTED', { file }, `${name} is ${JSON.stringify(value)}, expected ${wanted}`);
}

function checkBits(file: string, name: string, value: unknown): void {
  if (value !== 4) expected(file, name, value, '4');
}

/** A number of columns, or -1 for all. */
function groupOf(file: string, name: string, value: unknown): number | null {
  if (value === undefined || value === null) return null;
  if (value === -1 || (Number.isSafeInteger(value) && (value as number) > 0)) return value as number;
  throw new CheckpointError('FILE', { file }, `${name} is ${JSON.stringify(value)}, expected a whole number or -1`);
}

function flag(file: string, name: string, value: unknown): boolean | null {
  if (value === undefined || value === null) return null;
  if (typeof value === 'boolean') return value;
  throw new CheckpointError('FILE', { file }, `${name} is ${JSON.stringify(value)}, expected true or false`);
}

function gptq(settings: JsonObject, file: string): Quantization {
  checkBits(file, 'bits', settings.bits);
  const format = settings.checkpoint_format ?? null;
  if (settings.is_marlin_format === true) expected(file, 'is_marlin_format', true, 'the packing of GPTQ');
  if (format !== null && format !== 'gptq' && format !== 'gptq_v2')
    expected(file, 'checkpoint_format', format, 'gptq or gptq_v2');
  if ((settings.pack_dtype ?? 'int32') !== 'int32') expected(file, 'pack_dtype', settings.pack_dtype, 'int32');
  // Modules with settings of their own make the global ones mean nothing for a given layer.
  const own = isObject(settings.dynamic) && Object.keys(settings.dynamic).length > 0;
  return {
    method: 'gptq',
    group: own ? null : groupOf(file, 'group_size', settings.group_size),
    symmetric: own ? null : flag(file, 'sym', settings.sym),
    checkpointFormat: format,
    file,
  };
}

function awq(settings: JsonObject, file: string): Quantization {
  checkBits(file, 'bits', settings.bits ?? settings.w_bit);
  const version = settings.version ?? settings.checkpoint_format ?? 'gemm';
  if (typeof version !== 'string' || version.toLowerCase() !== 'gemm') expected(file, 'version', version, 'gemm');
  const group = groupOf(file, 'group_size', settings.group_size ?? settings.q_group_size);
  const asymmetric = flag(file, 'zero_point', settings.zero_point);
  return { method: 'awq', group, symmetric: asymmetric === null ? null : !asymmetric, checkpointFormat: null, file };
}

function compressedTensors(settings: JsonObject, file: string): Quantization {
  const groups = isObject(settings.config_groups) ? Object.values(settings.config_groups).filter(isObject) : [];
  const whole: Quantization = {
    method: 'compressed-tensors',
    group: null,
    symmetric: null,
    checkpointFormat: null,
    file,
  };
  if (settings.format !== 'pack-quantized' && settings.format !== 'mixed-precision')
    expected(file, 'format', settings.format, 'pack-quantized');
  // Which of several groups of settings a layer belongs to is in patterns; its tensors say the same with less to go wrong.
  if (groups.length !== 1) return whole;
  const { weights } = groups[0]!;
  if (!isObject(weights)) return expected(file, 'weights', weights, 'settings of 4-bit weights');
  checkBits(file, 'num_bits', weights.num_bits);
  if (weights.type !== 'int') expected(file, 'type', weights.type, '"int"');
  if (weights.strategy !== 'group' && weights.strategy !== 'channel')
    expected(file, 'strategy', weights.strategy, '"group" or "channel"');
  const group = weights.strategy === 'channel' ? -1 : groupOf(file, 'group_size', weights.group_size);
  return { ...whole, group, symmetric: flag(file, 'symmetric', weights.symmetric) };
}
