// A test case or a benchmark shape of an operator, as data: it can be printed, compared and built anywhere.
import type { DType } from './dtype.js';

export type ParamValue = number | boolean | string;
/** How a dimension that broadcasts appears: in full, repeated with stride 0, of size 1, or (a leading `batch?`) not at all. */
export type BroadcastForm = 'full' | 'shared' | 'one' | 'absent';
/**
 * dense; rows apart (`padded`, odd gaps and offset); the outermost dimension stored inside the others (`swapped`); or the two
 * before the last stored the other way round (`crossed`).
 */
export type Layout = 'dense' | 'padded' | 'swapped' | 'crossed';

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
  /** By tensor, for its leading dimension, or by `tensor.dimension`. */
  broadcast?: Readonly<Record<string, BroadcastForm>>;
  layout?: Readonly<Record<string, Layout>>;
  /** The input whose memory the output takes over. */
  inPlace?: string;
  /** Contents of inputs, in row-major order or one value for all; default: random, within what the operator's inputs may hold. */
  values?: Readonly<Record<string, number | readonly number[]>>;
  /** Inputs are small whole numbers, so that every backend must agree with the reference bit for bit, in the outputs named or all. */
  exact?: boolean | readonly string[];
}

/** A shape that somebody serves. */
export interface Model extends Case {
  /** Part of the short list that a benchmark on a CPU runs by default. */
  quick?: boolean;
}
