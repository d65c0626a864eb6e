// Layouts of views: the same memory under another shape.
import type { DType } from './dtype.js';
import { KernwattError } from './errors.js';
import { countElements, formatShape, isRowMajor, rowMajor, type Shape } from './shape.js';

interface Layout {
  shape: number[];
  stride: number[];
}

/** What a view is made of. */
interface Viewed {
  readonly shape: Shape;
  readonly stride: Shape;
  readonly size: number;
  readonly dtype: DType;
  readonly isContiguous: boolean;
}

/** Another shape of as many elements; one size may be -1. */
export function viewLayout(tensor: Viewed, shape: Shape): Layout {
  const at = shape.indexOf(-1);
  const rest = shape.reduce((a, n, i) => (i === at ? a : a * n), 1);
  const full = at < 0 ? [...shape] : shape.map((n, i) => (i === at ? (rest === 0 ? 0 : tensor.size / rest) : n));
  if (full.some((n) => !Number.isInteger(n)) || countElements('view', full, tensor.dtype) !== tensor.size)
    throw new KernwattError(
      'SHAPE',
      `view: shape is ${formatShape(shape)}, expected ${tensor.size} elements as in ${formatShape(tensor.shape)}`,
    );
  if (!tensor.isContiguous)
    throw new KernwattError(
      'ARGUMENT',
      `view: tensor has strides ${formatShape(tensor.stride)}, expected a contiguous one; use contiguous()`,
    );
  return { shape: full, stride: rowMajor(full) };
}

/** Throws unless a view of 4-bit elements, `offset` elements into a tensor, is a run of whole bytes; the tensor is one. */
export function checkPairs(where: string, tensor: Viewed, offset: number, shape: Shape, stride: Shape): void {
  const end = offset + shape.reduce((a, b) => a * b, 1);
  if (offset % 2 === 0 && (end % 2 === 0 || end === tensor.size) && isRowMajor(shape, stride)) return;
  throw new KernwattError(
    'UNSUPPORTED',
    `${where}: ${tensor.dtype} ${formatShape(shape)} from element ${offset} with strides ${formatShape(stride)} ` +
      'is no run of whole bytes, expected one, as two elements lie in a byte',
  );
}

/** The dimensions in another order. */
export function permuteLayout({ shape, stride }: Viewed, order: readonly number[]): Layout {
  if (order.length !== shape.length || shape.some((_, i) => !order.includes(i)))
    throw new KernwattError(
      'ARGUMENT',
      `permute: order is ${formatShape(order)}, expected each of 0 to ${shape.length - 1} once`,
    );
  return { shape: order.map((i) => shape[i]!), stride: order.map((i) => stride[i]!) };
}

/** Dimensions of size 1 repeated, and leading ones added. */
export function expandLayout(tensor: Viewed, shape: Shape): Layout {
  countElements('expand', shape, tensor.dtype);
  const lead = shape.length - tensor.shape.length;
  const fits = lead >= 0 && tensor.shape.every((n, i) => n === 1 || n === shape[i + lead]);
  if (!fits)
    throw new KernwattError(
      'SHAPE',
      `expand: shape is ${formatShape(shape)}, expected one that ${formatShape(tensor.shape)} broadcasts to`,
    );
  const stride = shape.map((n, i) =>
    i < lead || (tensor.shape[i - lead] === 1 && n !== 1) ? 0 : tensor.stride[i - lead]!,
  );
  return { shape: [...shape], stride };
}
