// A test case or a benchmark shape of an operator, as data: it can be printed, compared and built anywhere.
import type { DType } from './dtype.js';

export type ParamValue = number | boolean | string;
/** How a tensor's optional leading dimension appears: in full, repeated with stride 0, of size 1, or not at all. */
export type BatchForm = 'full' | 'shared' | 'one' | 'absent';
/** dense; rows apart (`padded`, odd gaps and offset); or outer dimensions stored in another order (`swapped`). */
export type Layout = 'dense' | 'padded' | 'swapped';

export interface Case {
  /** Unique within the operator: `check --case` finds it by this. */
  name: string;
  /** Size of every dimension that does not follow from others. */
  dims: Readonly<Record<string, number>>;
  /** Parameters other than the defaults. */
  params?: Readonly<Record<string, ParamValue>>;
  /** Optional inputs to pass. */
  with?: readonly string[];
  /** Element types that differ from the first one a tensor allows. */
  dtypes?: Readonly<Record<string, DType>>;
  batch?: Readonly<Record<string, BatchForm>>;
  layout?: Readonly<Record<string, Layout>>;
  /** The input whose memory the output takes over. */
  inPlace?: string;
  /** Inputs are small whole numbers, so that every backend must agree with the reference bit for bit. */
  exact?: boolean;
}

/** A shape that somebody serves. */
export interface Model extends Case {
  /** Part of the short list that a benchmark on a CPU runs by default. */
  quick?: boolean;
}
