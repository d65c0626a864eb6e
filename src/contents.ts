// Whole numbers in operands, such as lengths and tables, against what the declaration says they hold.
import type { Compiled } from './compile.js';
import { KernwattError } from './errors.js';
import type { Shape } from './shape.js';
import type { Holds } from './spec.js';
import type { Tensor } from './tensor.js';

/** Lengths and offsets whose values the host has at hand; what only a device knows is for the kernels to check. */
export function checkContents(
  op: Compiled,
  tensors: Readonly<Record<string, Tensor>>,
  size: Readonly<Record<string, number>>,
): void {
  for (const { name, spec } of op.tensors) {
    const { holds } = spec;
    const values = holds && tensors[name]?.known();
    if (!values) continue;
    if (holds.kind === 'pages') checkPages(op.spec.name, name, holds, values, tensors[holds.lengths]?.known(), size);
    else if (holds.kind === 'selection')
      checkSelection(op.spec.name, name, values, tensors[name]!.shape, size[holds.of]!, tensors[holds.lengths]);
    else checkNumbers(op.spec.name, name, holds, values, size);
  }
}

/** Entries of a table of pages that `lengths` reach; nothing is known of them without these. */
function checkPages(
  where: string,
  name: string,
  { of, each }: Extract<Holds, { kind: 'pages' }>,
  table: ArrayLike<number>,
  lengths: ArrayLike<number> | undefined,
  size: Readonly<Record<string, number>>,
): void {
  const columns = lengths?.length ? table.length / lengths.length : 0;
  for (let i = 0; i < columns * (lengths?.length ?? 0); ++i) {
    const row = Math.floor(i / columns);
    const column = i % columns;
    const page = table[i]!;
    if (column * size[each]! < lengths![row]! && (page < 0 || page >= size[of]!))
      throw new KernwattError(
        'INDEX',
        `${where}: ${name}[${row}, ${column}] is ${page}, expected 0 to ${size[of]! - 1}`,
      );
  }
}

/** Rows of ascending numbers below `end`, as far as the first -1. Which rows count may be known on the device alone. */
function checkSelection(
  where: string,
  name: string,
  values: ArrayLike<number>,
  shape: Shape,
  end: number,
  lengths: Tensor | undefined,
): void {
  const lens = lengths?.known();
  if (lengths && !lens) return;
  const columns = shape.at(-1)!;
  const each = shape.slice(2, -1).reduce((a, b) => a * b, 1);
  for (let row = 0; row * columns < values.length; ++row) {
    const i = Math.floor(row / each);
    if (lens && i % shape[1]! >= lens[Math.floor(i / shape[1]!)]!) continue;
    for (let column = 0, low = 0; column < columns; ++column) {
      const value = values[row * columns + column]!;
      if (value === -1) break;
      const range = low < end ? `${low} to ${end - 1}` : '-1 to -1';
      if (value < low || value >= end)
        throw new KernwattError('INDEX', `${where}: ${name}[${row}, ${column}] is ${value}, expected ${range}`);
      low = value + 1;
    }
  }
}

/** Lengths, offsets and indices against the size that bounds them. */
export function checkNumbers(
  where: string,
  name: string,
  holds: Exclude<Holds, { kind: 'pages' | 'selection' }>,
  values: ArrayLike<number>,
  size: Readonly<Record<string, number>>,
): void {
  if (holds.kind === 'flags') return;
  const high = size[holds.of]! - (holds.kind === 'indices' ? 1 : 0);
  let low = 0;
  for (let i = 0; i < values.length; ++i) {
    const value = values[i]!;
    if (value < low || value > high)
      throw new KernwattError('INDEX', `${where}: ${name}[${i}] is ${value}, expected ${low} to ${high}`);
    if (holds.kind === 'offsets') low = value;
  }
}
