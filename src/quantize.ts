// Weights to four bits and back: what gemmInt4 multiplies, made from a float tensor. kernels/core/host/quantize.h has the formulas.
import type { Device } from './device.js';
import type { DType } from './dtype.js';
import { KernwattError } from './errors.js';
import { native } from './native.js';
import { formatShape } from './shape.js';
import { either, kindOf } from './solve.js';
import type { Stream } from './stream.js';
import { Tensor } from './tensor.js';

const floats = ['f32', 'bf16', 'f16'] as const;
type Float = (typeof floats)[number];

interface CommonOptions {
  /** Of the scales; default: that of `w`. */
  scaleDtype?: Float | undefined;
  stream?: Stream | undefined;
  /** Aborting rejects with the signal's reason and leaves nothing behind. */
  signal?: AbortSignal | undefined;
  /** Rows that are done, now and then. */
  onProgress?: ((done: { rows: number; of: number }) => void) | undefined;
}

export interface QuantizeInt4Options extends CommonOptions {
  /** Neighbours along `k` that share a scale: a multiple of 32 that divides `k`, or `row` for all of them. Default 128. */
  group?: number | 'row' | undefined;
  /** Without zero points; default true. */
  symmetric?: boolean | undefined;
  /** `nearest`: the whole range of each group. `clipped`: that share of it, from all to half, with the least squared error. */
  method?: 'nearest' | 'clipped' | undefined;
}

export interface QuantizeNf4Options extends CommonOptions {
  /** As `group`; default 64. */
  block?: number | 'row' | undefined;
}

/** A weight of four bits as gemmInt4 takes it: `gemmInt4({ x, ...quantized.operands })`. */
export interface QuantizedWeight {
  readonly operands: { readonly w: Tensor; readonly scales: Tensor; readonly zeros?: Tensor };
  /** Of all operands: what the weight really takes. */
  readonly bytes: number;
  /** Bytes over what the weight took before, as it was. */
  readonly ratio: number;
  /** Disposes of the operands. Idempotent. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * Rounds a weight `[rowsW, k]` to whole numbers of four bits, on all cores, in pieces between which the stream serves others. The result
 * is the same bit for bit however many threads work.
 *
 * @param w f32, bf16 or f16 on the CPU, any strides; it stays as it is.
 * @throws {KernwattError} `SHAPE` where the group does not fit; `DTYPE`; `ARGUMENT` for an element that is not finite or a scale beyond
 *   its dtype, and for options that make no sense; `UNSUPPORTED` on another device than the CPU; `OUT_OF_MEMORY`; `DISPOSED`; the signal's
 *   reason. Nothing stays behind then.
 * @see Frantar et al. 2022 (GPTQ), https://arxiv.org/abs/2210.17323; Lin et al. 2023 (AWQ), https://arxiv.org/abs/2306.00978
 */
export async function quantizeInt4(w: Tensor, options: QuantizeInt4Options = {}): Promise<QuantizedWeight> {
  const { group = 128, symmetric = true, method = 'nearest', ...common } = options;
  if (typeof symmetric !== 'boolean') throw wrong('quantizeInt4', 'symmetric', symmetric, 'true or false');
  if (method !== 'nearest' && method !== 'clipped') throw wrong('quantizeInt4', 'method', method, 'nearest or clipped');
  return quantize('quantizeInt4', w, 'u4', { name: 'group', size: group }, !symmetric, method === 'clipped', common);
}

/**
 * Rounds a weight `[rowsW, k]` to the sixteen values of NF4, each block scaled by its largest magnitude; otherwise as quantizeInt4.
 * @see Dettmers et al. 2023 (QLoRA), https://arxiv.org/abs/2305.14314
 */
export function quantizeNf4(w: Tensor, options: QuantizeNf4Options = {}): Promise<QuantizedWeight> {
  const { block = 64, ...common } = options;
  return quantize('quantizeNf4', w, 'nf4', { name: 'block', size: block }, false, false, common);
}

/**
 * The weight that four bits stand for, each element rounded once to `dtype` (default f32). On the CPU, on all cores.
 * @throws {KernwattError} `SHAPE`, `DTYPE` where the operands do not belong together; otherwise as quantizeInt4.
 */
export async function dequantize(
  { w, scales, zeros }: QuantizedWeight['operands'],
  options: { dtype?: Float | undefined } & Pick<CommonOptions, 'stream' | 'signal' | 'onProgress'> = {},
): Promise<Tensor> {
  const where = 'dequantize';
  const { dtype = 'f32', ...common } = options;
  check(where, 'w', w, ['u4', 'nf4']);
  check(where, 'scales', scales, floats);
  if (zeros) check(where, 'zeros', zeros, ['u4']);
  if (!floats.includes(dtype)) throw wrong(where, 'dtype', dtype, either(floats));
  const [rows, k] = w.shape as [number, number];
  const groups = scales.shape[0]!;
  for (const [name, tensor] of Object.entries({ scales, zeros }))
    if (tensor && (tensor.shape[0] !== groups || tensor.shape[1] !== rows))
      throw new KernwattError(
        'SHAPE',
        `${where}: ${name} is ${formatShape(tensor.shape)}, expected ${formatShape([groups, rows])}`,
      );
  groupOf(where, 'scales', groups > 0 ? k / groups : 0, k);
  const stream = streamOf(where, w.device, common);
  const full = w.device.allocate(where, [rows, k], dtype);
  try {
    await inPieces(where, native().dequantize, [full, w, scales, zeros], false, 2 ** 20, [full], stream, common);
    return full;
  } catch (error) {
    full.dispose();
    throw error;
  }
}

async function quantize(
  where: string,
  w: Tensor,
  dtype: 'u4' | 'nf4',
  group: { name: string; size: number | 'row' },
  withZeros: boolean,
  clipped: boolean,
  options: CommonOptions,
): Promise<QuantizedWeight> {
  check(where, 'w', w, floats);
  const { scaleDtype = w.dtype as Float } = options;
  if (!floats.includes(scaleDtype)) throw wrong(where, 'scaleDtype', scaleDtype, either(floats));
  const [rows, k] = w.shape as [number, number];
  const groups = k / groupOf(where, group.name, group.size === 'row' ? k : group.size, k);
  const { device } = w;
  const stream = streamOf(where, device, options);
  const made: Tensor[] = [];
  const make = (shape: number[], type: DType) => {
    const tensor = device.allocate(where, shape, type);
    made.push(tensor);
    return tensor;
  };
  const dispose = () => {
    for (const tensor of made) tensor.dispose();
  };
  try {
    const codes = make([rows, k], dtype);
    const scales = make([groups, rows], scaleDtype);
    const zeros = withZeros ? make([groups, rows], 'u4') : undefined;
    const piece = clipped ? 2 ** 17 : 2 ** 20;
    await inPieces(where, native().quantize, [w, codes, scales, zeros], clipped, piece, made, stream, options);
    const bytes = made.reduce((sum, tensor) => sum + tensor.bytes, 0);
    const operands = { w: codes, scales, ...(zeros && { zeros }) };
    return { operands, bytes, ratio: bytes / w.bytes, dispose, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

type Job = ReturnType<typeof native>['quantize'];

/** Runs a job on so many rows at a time; the first tensor is the one in floats. */
async function inPieces(
  where: string,
  job: Job,
  [w, codes, scales, zeros]: readonly [Tensor, Tensor, Tensor, Tensor | undefined],
  clipped: boolean,
  elements: number,
  written: readonly (Tensor | undefined)[],
  stream: Stream,
  { signal, onProgress }: Pick<CommonOptions, 'signal' | 'onProgress'>,
): Promise<void> {
  const [rows, k] = w.shape as [number, number];
  const tensors = [w, codes, scales, zeros];
  const step = Math.max(1, Math.floor(elements / k));
  const views = tensors.map((tensor) => tensor?.nativeView);
  for (const tensor of tensors) tensor?.ordered(where, 'w', stream);
  for (let row = 0; row < rows; row += step) {
    signal?.throwIfAborted();
    const end = Math.min(row + step, rows);
    job(stream.handle, views[0]!, views[1]!, views[2]!, views[3], clipped, row, end);
    for (const tensor of written) tensor?.storage.wrote(stream);
    await stream.mark();
    onProgress?.({ rows: end, of: rows });
  }
}

/** The size of a group, checked. */
function groupOf(where: string, name: string, group: number, k: number): number {
  if (Number.isInteger(group) && group >= 32 && group % 32 === 0 && k % group === 0 && k > 0) return group;
  throw new KernwattError(
    'SHAPE',
    `${where}: ${name} is ${kindOf(group)} for k ${k}, expected a multiple of 32 that divides k`,
  );
}

function check(where: string, name: string, tensor: unknown, allowed: readonly DType[]): asserts tensor is Tensor {
  if (!(tensor instanceof Tensor)) throw wrong(where, name, tensor, 'a tensor');
  tensor.checkPlain(where, name);
  if (tensor.device.kind !== 'cpu')
    throw new KernwattError('UNSUPPORTED', `${where}: ${name} is on ${tensor.device.name}, expected cpu; use to()`);
  if (!allowed.includes(tensor.dtype))
    throw new KernwattError('DTYPE', `${where}: ${name} is ${tensor.dtype}, expected ${either(allowed)}`);
  if (tensor.shape.length !== 2)
    throw new KernwattError('SHAPE', `${where}: ${name} is ${formatShape(tensor.shape)}, expected two dimensions`);
}

const known = new Set(['scaleDtype', 'stream', 'signal', 'onProgress']);

function streamOf(where: string, device: Device, options: CommonOptions): Stream {
  for (const name of Object.keys(options))
    if (!known.has(name))
      throw new KernwattError('ARGUMENT', `${where}: ${name} is not an option, expected ${[...known].join(', ')}`);
  const stream = options.stream ?? device.stream;
  stream.check(where);
  if (stream.device !== device)
    throw new KernwattError('ARGUMENT', `${where}: stream is on ${stream.device.name}, expected ${device.name} as w`);
  return stream;
}

const wrong = (where: string, name: string, value: unknown, wanted: string): KernwattError =>
  new KernwattError('ARGUMENT', `${where}: ${name} is ${kindOf(value)}, expected ${wanted}`);
