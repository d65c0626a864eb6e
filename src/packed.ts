// Operands packed once for the kernels of a backend: what a tensor's format is, and how one is made.
import type { Compiled } from './compile.js';
import type { DType } from './dtype.js';
import { dtypeIndex } from './dtype.js';
import { KernwattError } from './errors.js';
import { type DeviceHandle, native } from './native.js';
import { type Backend, chooseBackend } from './plan.js';
import type { Shape } from './shape.js';
import { isWritten, type ParamSpec, type ParamSpecs, type TensorSpecs } from './spec.js';
import type { Stream } from './stream.js';
import { Tensor } from './tensor.js';

export interface PrepackOptions {
  /** Disposes the operand once it has been packed, so that the packed one replaces it. */
  dispose?: boolean | undefined;
  /** Default: the stream that was last given the operand to write, else the device's own. */
  stream?: Stream | undefined;
  /** Default: the fast one of the device. */
  backend?: Backend | undefined;
}

type InputName<T extends TensorSpecs> = { [K in keyof T]: T[K]['role'] extends 'inout' | 'out' ? never : K }[keyof T];
type FlagName<P extends ParamSpecs> = { [K in keyof P]: P[K] extends ParamSpec<boolean> ? K : never }[keyof P];

/** One operand by its name, and the flag by which it is transposed. */
export type PrepackArgs<T extends TensorSpecs, P extends ParamSpecs> = {
  readonly [K in InputName<T>]?: Tensor | undefined;
} & { readonly [K in FlagName<P>]?: boolean | undefined };

/** @internal How the data of a packed tensor lie (kernels/core/packed.h). */
export interface Packed {
  tag: number;
  bytes: number;
  text: string;
}

/** @internal Which format a backend wants an operand in. */
export type FormatQuery = [
  op: string,
  backend: string,
  device: DeviceHandle,
  operand: string,
  dtype: number,
  shape: Shape,
];

/** @internal The format of a tag for a shape; throws for what is none. */
export function packedExtent(dtype: DType, shape: Shape, tag: number): Packed {
  return native().packedExtent(dtypeIndex(dtype), shape, tag);
}

/** @internal A plain copy of a packed tensor. */
export function unpack(tensor: Tensor, stream: Stream): Tensor {
  if (!tensor.packed) throw new KernwattError('ARGUMENT', 'unpack: tensor is plain, expected a packed one');
  const plain = tensor.device.allocate('unpack', tensor.shape, tensor.dtype, stream);
  try {
    return plain.copyFrom(tensor, { stream });
  } catch (error) {
    plain.dispose();
    throw error;
  }
}

const optionNames = ['dispose', 'stream', 'backend'];

/** @internal */
export function prepack(op: Compiled, args: Readonly<Record<string, unknown>>, options: PrepackOptions): Tensor {
  const where = `${op.spec.name}.prepack`;
  if (args === null || typeof args !== 'object')
    throw new KernwattError('ARGUMENT', `${where}: arguments are ${String(args)}, expected one operand by its name`);
  for (const name of Object.keys(options))
    if (!optionNames.includes(name))
      throw new KernwattError('ARGUMENT', `${where}: ${name} is not an option, expected ${optionNames.join(', ')}`);
  const given = Object.keys(args).filter((name) => args[name] instanceof Tensor);
  const operand = op.tensors.find((t) => t.name === given[0] && !isWritten(t.spec));
  if (!operand || given.length !== 1)
    throw new KernwattError(
      'ARGUMENT',
      `${where}: operands are ${given.join(', ') || 'none'}, expected one input of ${op.spec.name}`,
    );
  const { transpose } = operand.spec;
  for (const name of Object.keys(args))
    if (name !== operand.name && name !== transpose)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} is not an argument, expected ${[operand.name, transpose].filter(Boolean).join(' and ')}`,
      );
  const tensor = args[operand.name] as Tensor;
  tensor.checkPlain(where, operand.name);
  const backend = chooseBackend(where, tensor.device, options.backend);
  const flipped = transpose !== undefined && args[transpose] === true;
  const swapped = tensor.shape.map((_, i) => i);
  if (flipped) swapped.push(...swapped.splice(-2).reverse());
  using source = tensor.permute(swapped);
  const kind = backend === 'cuda' ? 'library' : backend;
  const { dtype, device, shape } = source;
  const packed =
    shape.length < 2
      ? null
      : native().packedFormat(op.spec.name, kind, device.handle, operand.native, dtypeIndex(dtype), shape);
  if (!packed)
    throw new KernwattError(
      'UNSUPPORTED',
      `${where}: ${operand.name} is ${dtype} [${shape.join(', ')}] for ${backend}, which has no packed format for it`,
    );
  const stream = options.stream ?? tensor.storage.writer ?? device.stream;
  const target = device.allocatePacked(where, shape, dtype, packed, stream);
  try {
    target.copyFrom(source, { stream });
  } catch (error) {
    target.dispose();
    throw error;
  }
  if (options.dispose) tensor.dispose();
  return target;
}
