// What is wrong with a checkpoint, with the file and the tensor it is about.
import { type Code, KernwattError } from '../errors.js';

/** Where in a checkpoint something is wrong. */
export interface Place {
  file: string;
  tensor?: string | undefined;
}

/**
 * A checkpoint that cannot be read. Code `FILE`: missing, unreadable, cut off or contradicting itself; `SHAPE`, `DTYPE`: a tensor is
 * not what its layer needs; `UNSUPPORTED`: a format, type or setting that this library does not read.
 */
export class CheckpointError extends KernwattError {
  readonly file: string;
  /** The tensor, or the layer; null where the whole file is meant. */
  readonly tensor: string | null;

  /** @internal */
  constructor(code: Code, { file, tensor }: Place, message: string, options?: ErrorOptions) {
    super(code, `${file}: ${tensor === undefined ? '' : `${tensor} `}${message}`, options);
    this.file = file;
    this.tensor = tensor ?? null;
  }
}
