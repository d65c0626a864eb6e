// What a measured configuration holds for, as one line of text: everything of a bound operator that decides how fast it runs.
import type { Compiled } from '../compile.js';
import { bitsOf } from '../dtype.js';
import type { Backend } from '../plan.js';
import { formatShape, isRowMajor } from '../shape.js';
import type { Solved } from '../solve.js';
import type { Tensor } from '../tensor.js';

/** Kernels move 16 bytes at a time: where an operand begins among them decides which of them can. */
const pieceBytes = 16;

function textOf(name: string, tensor: Tensor): string {
  const { dtype, shape, stride, format, nativeView, storage } = tensor;
  const at = (storage.baseOffset + (nativeView.offset * bitsOf(dtype)) / 8) % pieceBytes;
  const lies = format !== 'plain' ? ` ${format}` : isRowMajor(shape, stride) ? '' : ` strides ${formatShape(stride)}`;
  return `${name} ${dtype} ${formatShape(shape)}${lies}${at === 0 ? '' : ` at byte ${at} of ${pieceBytes}`}`;
}

/** Of numbers only whether they are 0 is said: that alone can spare work. */
export function problemOf(
  compiled: Compiled,
  backend: Backend,
  { tensors, params }: Readonly<Pick<Solved, 'tensors' | 'params'>>,
): string {
  const operands = compiled.tensors.flatMap(({ name }) => (tensors[name] ? [textOf(name, tensors[name])] : []));
  const values = compiled.params.map(({ name, spec }) => {
    const value = params[name];
    return `${name} ${spec.kind === 'f32' ? (value === 0 ? '0' : 'not 0') : value}`;
  });
  return `${compiled.spec.name} ${backend}: ${[...operands, ...values].join(', ')}`;
}
