// The vocabulary of an operator's declaration, and the TypeScript types that follow from it.
import type { Case, Model } from './case.js';
import type { DType } from './dtype.js';
import type { Code } from './errors.js';
import type { Tensor } from './tensor.js';

/**
 * Dimension names of a tensor, outermost first. A leading name ending in `?` is optional and broadcasts: the dimension may be
 * absent, or have size 1 where others have more.
 */
export type DimNames = readonly string[];

/** Allowed element types: a list, or the type of another tensor. */
export type DTypeRule = readonly DType[] | { readonly like: string };

export interface TensorSpec {
  readonly role: 'in' | 'in?' | 'out';
  readonly dims: DimNames;
  readonly dtype: DTypeRule;
  /** Name of the flag that swaps the last two dimensions. */
  readonly transpose?: string | undefined;
  /** Outputs: the tensor whose dtype is the default. */
  readonly from?: string | undefined;
  /** Outputs: inputs that may be exactly the same view. */
  readonly inPlace?: readonly string[] | undefined;
}

interface InputOptions {
  dtype: DTypeRule;
  transpose?: string;
}

export const input = <const D extends DimNames>(dims: D, options: InputOptions) =>
  ({ role: 'in', dims, ...options }) as const;
export const optionalInput = <const D extends DimNames>(dims: D, options: InputOptions) =>
  ({ role: 'in?', dims, ...options }) as const;
export const output = <const D extends DimNames>(
  dims: D,
  options: { dtype: readonly DType[]; from: string; inPlace?: readonly string[] },
) => ({ role: 'out', dims, ...options }) as const;

export type Sizes = Readonly<Record<string, number>>;
/** Names of the optional inputs that were given. */
export type Given = ReadonlySet<string>;
type Default<V> = V | ((dims: Sizes, given: Given) => V);

export interface ParamSpec<V = unknown, Required extends boolean = boolean> {
  readonly kind: 'f32' | 'i64' | 'bool' | 'choice';
  readonly required: Required;
  readonly default?: Default<V> | undefined;
  /** The default in words, where it is computed. */
  readonly defaultText?: string | undefined;
  readonly choices?: readonly string[] | undefined;
  /** i64: inclusive bounds. */
  readonly range?: readonly [low: number, high: number] | undefined;
}

/** A finite number, rounded to f32. */
export const f32 = (value: Default<number>, defaultText?: string): ParamSpec<number, false> => ({
  kind: 'f32',
  required: false,
  default: value,
  defaultText,
});
export const flag = (value: boolean): ParamSpec<boolean, false> => ({ kind: 'bool', required: false, default: value });
/** One of several names, in the order of the C++ enumeration. */
export const choice = <const N extends readonly string[]>(names: N, value: N[number]): ParamSpec<N[number], false> => ({
  kind: 'choice',
  required: false,
  default: value,
  choices: names,
});
/** A whole number within bounds; required unless it has a default. */
export function integer(range: readonly [low: number, high: number]): ParamSpec<number, true>;
export function integer(range: readonly [low: number, high: number], value: Default<number>): ParamSpec<number, false>;
export function integer(range: readonly [low: number, high: number], value?: Default<number>): ParamSpec<number> {
  return { kind: 'i64', required: value === undefined, default: value, range };
}

export type TensorSpecs = Readonly<Record<string, TensorSpec>>;
// biome-ignore lint/suspicious/noExplicitAny: inference needs a constraint that every ParamSpec<V> satisfies
export type ParamSpecs = Readonly<Record<string, ParamSpec<any>>>;

type DimName<T extends TensorSpecs> = T[keyof T]['dims'][number] extends infer N
  ? N extends `${infer Base}?`
    ? Base
    : N
  : never;
/** Sizes by dimension name. */
export type Dims<T extends TensorSpecs> = { readonly [N in DimName<T> & string]: number };
type ValueOf<S> = S extends ParamSpec<infer V> ? V : never;
export type ParamValues<P extends ParamSpecs> = { readonly [K in keyof P]: ValueOf<P[K]> };

type WithRole<T extends TensorSpecs, R> = { [K in keyof T]: T[K]['role'] extends R ? K : never }[keyof T];
type Needed<P extends ParamSpecs, R extends boolean> = {
  [K in keyof P]: P[K] extends { required: R } ? K : never;
}[keyof P];

/** Arguments of an operator: its tensors (outputs are optional and allocated when absent) and its parameters. */
export type Args<T extends TensorSpecs, P extends ParamSpecs> = {
  [K in keyof T as K extends WithRole<T, 'in'> ? K : never]: Tensor;
} & {
  [K in keyof T as K extends WithRole<T, 'in?' | 'out'> ? K : never]?: Tensor | undefined;
} & {
  [K in keyof P as K extends Needed<P, true> ? K : never]: ValueOf<P[K]>;
} & {
  [K in keyof P as K extends Needed<P, false> ? K : never]?: ValueOf<P[K]> | undefined;
};

/** Results of an operator. */
export type Outputs<T extends TensorSpecs> = { [K in keyof T as K extends WithRole<T, 'out'> ? K : never]: Tensor };

/** What one call costs at least. */
export interface Work {
  /** Floating-point operations as the operator's page defines them. */
  flops: number;
  /** Minimum traffic: every operand once in its own dtype, repeated elements once. */
  bytes: number;
  /** Rows of activations and elements of weights, for throughput per token and parameter; null where there are none. */
  tokens: number | null;
  params: number | null;
}

/** A function type that compares like a method, so that a particular OpSpec is also an OpSpec of anything. */
type Method<A extends unknown[], R> = { call(...args: A): R }['call'];

/** One operator, declared once: types, checks, allocation, work, documentation and enumeration follow from it. */
export interface OpSpec<T extends TensorSpecs = TensorSpecs, P extends ParamSpecs = ParamSpecs> {
  /** snake_case, as everywhere else: folder, files, C++ functions, command line. */
  name: string;
  /** One sentence without a full stop. */
  summary: string;
  /** Where the definition comes from. */
  source: string;
  /** In the order of KW_FIELDS, like `params`. */
  tensors: T;
  params: P;
  /** Sizes that follow from others, such as an output dimension that only a parameter decides. */
  derive?: Readonly<Record<string, Method<[dims: Dims<T>, params: ParamValues<P>], number>>>;
  /** What cannot be, beyond equal names having equal sizes: false, or the code and the rest of the sentence. */
  rules?(dims: Dims<T>, params: ParamValues<P>, given: Given): readonly (false | readonly [Code, string])[];
  /**
   * Floating-point operations of one call, inputs that the parameters make the operator skip, rows of activations (tokens), and
   * the inputs that are weights.
   */
  work(
    dims: Dims<T>,
    params: ParamValues<P>,
  ): { flops: number; unread?: readonly string[]; tokens?: number; weights?: readonly string[] };
  /** What `flops` counts, in words. */
  flops: string;
  /** Cases that every backend must get right, and shapes of served models for benchmarks. */
  cases: () => readonly Case[];
  models: readonly Model[];
}
