// A declaration prepared for use: names as both languages spell them, dimension names apart from their marks.
import { snakeCase } from './native.js';
import type { OpSpec, ParamSpec, TensorSpec } from './spec.js';

export interface Compiled {
  spec: OpSpec;
  tensors: readonly CompiledTensor[];
  params: readonly { name: string; native: string; spec: ParamSpec }[];
  names: ReadonlySet<string>;
}

export interface Dim {
  name: string;
  /** As declared. */
  text: string;
  /** It may be 1 where others have more. */
  broadcasts: boolean;
  /** Elements beyond the size of that name. */
  extra: number;
}

export interface CompiledTensor {
  name: string;
  native: string;
  spec: TensorSpec;
  /** As stored, and with the last two swapped. */
  dims: readonly Dim[];
  swapped: readonly Dim[];
  /** The first dimension may be absent. */
  optional: boolean;
}

/** A dimension name with its mark. */
export function readDim(text: string): Dim {
  const name = text.replace(/\?$| or 1$| \+ 1$/, '');
  return { name, text, broadcasts: /\?$| or 1$/.test(text), extra: text.endsWith(' + 1') ? 1 : 0 };
}

export function compile(spec: OpSpec): Compiled {
  const tensors = Object.entries(spec.tensors).map(([name, t]) => {
    const dims = t.dims.map(readDim);
    const swapped = [...dims.slice(0, -2), ...dims.slice(-2).reverse()];
    return { name, native: snakeCase(name), spec: t, dims, swapped, optional: t.dims[0]?.endsWith('?') ?? false };
  });
  const params = Object.entries(spec.params).map(([name, p]) => ({ name, native: snakeCase(name), spec: p }));
  return { spec, tensors, params, names: new Set([...Object.keys(spec.tensors), ...Object.keys(spec.params)]) };
}

/** The dimensions of a tensor under the flags given. */
export const dimsOf = (t: CompiledTensor, params: Readonly<Record<string, unknown>>): readonly Dim[] =>
  t.spec.transpose && params[t.spec.transpose] === true ? t.swapped : t.dims;
