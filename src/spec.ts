// The vocabulary of an operator's declaration, and the TypeScript types that follow from it.
import type { Case, Model } from './case.js';
import type { DType } from './dtype.js';
import type { Code } from './errors.js';
import type { Tensor } from './tensor.js';

/**
 * Dimension names of a tensor, outermost first, plain or marked:
 * `batch?`, leading alone: the dimension may be absent, or have size 1 where others have more;
 * `heads or 1`: it may have size 1 where others have more;
 * `sequences + 1`: it has one element more than that size.
 */
export type DimNames = readonly string[];

/** Allowed element types: a list, or the type of another tensor and, where `or` has any, those. */
export type DTypeRule = readonly DType[] | { readonly like: string; readonly or?: readonly DType[] };

export interface TensorSpec {
  /** `inout`: has to be given; some of it is changed, and the rest stays as it is. */
  readonly role: 'in' | 'in?' | 'inout' | 'out';
  readonly dims: DimNames;
  readonly dtype: DTypeRule;
  /** Types that make sense here, and that no backend takes in this version. */
  readonly reserved?: readonly DType[] | undefined;
  /** Name of the flag that swaps the last two dimensions. */
  readonly transpose?: string | undefined;
  /** Outputs: the tensor whose dtype is the default; without it there is one dtype, whatever `options.dtype` says. */
  readonly from?: string | undefined;
  /** Outputs: inputs that may be exactly the same view. */
  readonly inPlace?: readonly string[] | undefined;
  /** Inputs of whole numbers: what they say. */
  readonly holds?: Holds | undefined;
}

/**
 * What whole numbers mean. Contents that are known when binding are checked, and cases are filled, by this.
 * `lengths`: from 0 to the size `of`, which may be a derived one; `offsets`: besides, none below the one before; `flags`: 0 is
 * false, all else true. `indices`: from 0 to one less than the size `of`.
 * `pages`: a table [batch, pages of a request] of indices along `of`, of which those count that the tensor of `lengths` reaches, so
 * many elements `each`; cases hold every index once, and -1 where nothing counts.
 * `selection`: along the last dimension ascending indices along `of`, and -1 from some entry on; of a batch those rows count that
 * the tensor of `lengths` reaches.
 * `beyond`: tensors that are never read past the length along `of`, or outside what a table of pages reaches; cases hold NaN there.
 * A table whose pages are only read may name one twice, and cases do where there are too few.
 */
export type Holds =
  | { readonly kind: 'lengths' | 'offsets'; readonly of: string; readonly beyond: readonly string[] }
  | { readonly kind: 'indices'; readonly of: string }
  | { readonly kind: 'selection'; readonly of: string; readonly lengths: string }
  | {
      readonly kind: 'pages';
      readonly of: string;
      readonly each: string;
      readonly lengths: string;
      readonly beyond?: readonly string[];
    }
  | { readonly kind: 'flags' };

interface InputOptions {
  dtype: DTypeRule;
  reserved?: readonly DType[];
  transpose?: string;
  holds?: Holds;
}

export const input = <const D extends DimNames>(dims: D, options: InputOptions) =>
  ({ role: 'in', dims, ...options }) as const;
export const optionalInput = <const D extends DimNames>(dims: D, options: InputOptions) =>
  ({ role: 'in?', dims, ...options }) as const;
/**
 * A tensor that is updated in place. What a call leaves behind may depend on its other arguments alone, so that calling twice is
 * calling once: plans are measured, and graphs replayed, many times. Checks compare the whole tensor with the definition.
 */
export const updated = <const D extends DimNames>(dims: D, options: { dtype: DTypeRule }) =>
  ({ role: 'inout', dims, ...options }) as const;
export const output = <const D extends DimNames>(
  dims: D,
  options: { dtype: readonly DType[]; from?: string; inPlace?: readonly string[] },
) => ({ role: 'out', dims, ...options }) as const;

/** Whether a call writes to the tensor. */
export const isWritten = ({ role }: TensorSpec): boolean => role === 'inout' || role === 'out';
/** Whether a call cannot do without being given the tensor. */
export const isRequired = ({ role }: TensorSpec): boolean => role === 'in' || role === 'inout';

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

/** A finite number, rounded to f32; required unless it has a default. */
export function f32(): ParamSpec<number, true>;
export function f32(value: Default<number>, defaultText?: string): ParamSpec<number, false>;
export function f32(value?: Default<number>, defaultText?: string): ParamSpec<number> {
  return { kind: 'f32', required: value === undefined, default: value, defaultText };
}
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
  ? N extends `${infer Base}?` | `${infer Base} or 1` | `${infer Base} + 1`
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
  [K in keyof T as K extends WithRole<T, 'in' | 'inout'> ? K : never]: Tensor;
} & {
  [K in keyof T as K extends WithRole<T, 'in?' | 'out'> ? K : never]?: Tensor | undefined;
} & {
  [K in keyof P as K extends Needed<P, true> ? K : never]: ValueOf<P[K]>;
} & {
  [K in keyof P as K extends Needed<P, false> ? K : never]?: ValueOf<P[K]> | undefined;
};

/** Results of an operator, tensors that it updated in place among them. */
export type Outputs<T extends TensorSpecs> = {
  [K in keyof T as K extends WithRole<T, 'inout' | 'out'> ? K : never]: Tensor;
};

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
  rules?(
    dims: Dims<T>,
    params: ParamValues<P>,
    given: Given,
    dtypes: Readonly<Record<string, DType>>,
  ): readonly (false | readonly [Code, string])[];
  /**
   * Floating-point operations of one call, inputs that the parameters make the operator skip, the share of others that it
   * reads (1 unless named), rows of activations (tokens), the inputs that are weights, and those that these cannot be read without,
   * such as scales.
   */
  work(
    dims: Dims<T>,
    params: ParamValues<P>,
    given: Given,
  ): {
    flops: number;
    unread?: readonly string[];
    read?: Readonly<Record<string, number>>;
    tokens?: number;
    weights?: readonly string[];
    withWeights?: readonly string[];
  };
  /** What `flops` counts, in words. */
  flops: string;
  /**
   * What random cases draw sizes and whole numbers among the parameters from, where most would break a rule, take too long or
   * say little: a list, or the divisors of another size.
   */
  draw?: Readonly<Record<string, readonly number[] | { readonly divides: string }>>;
  /** Cases that every backend must get right, and shapes of served models for benchmarks. */
  cases: () => readonly Case[];
  models: readonly Model[];
  /** A load that nobody serves: it has no models, so benchmarks of operators leave it out. */
  synthetic?: boolean;
}
