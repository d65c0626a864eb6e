// A 4-bit weight in host memory, in the layout that gemmInt4 reads, and what the importers of all formats share: checked reads of
// the tensors of a layer, and putting the parts together.
import { formatShape, type Shape } from '../shape.js';
import type { Checkpoint, StoredTensor } from './checkpoint.js';
import { CheckpointError } from './error.js';
import { packPairs } from './repack.js';
import type { ReadOptions } from './source.js';
import type { Pieces } from './turns.js';

export type Int4Format = 'gptq' | 'gptq_v2' | 'awq' | 'compressed-tensors' | 'Q4_0' | 'Q4_1';

/** Stored floating-point numbers and their type. */
export interface Scales {
  data: Uint16Array | Float32Array;
  dtype: 'f16' | 'bf16' | 'f32';
}

/** A linear layer's weight as four-bit codes: weight[r, i] = (w[r, p] - zeros[p / group, r]) * scales[p / group, r] with i = perm[p]. */
export interface Int4Weight {
  /** Packed u4 [rows, k], two elements to a byte, the even one low. */
  readonly w: Uint8Array;
  /** [groups, rows]. */
  readonly scales: Scales;
  /** Packed u4 [groups, rows]; absent: 8 everywhere. */
  readonly zeros?: Uint8Array;
  /** [k]: the column of the layer that each stored column is; absent: as they come. */
  readonly perm?: Int32Array;
  readonly rows: number;
  readonly k: number;
  /** Neighbours along k that share a scale. */
  readonly group: number;
  readonly symmetric: boolean;
  readonly source: { readonly format: Int4Format; readonly layer: string; readonly files: readonly string[] };
}

/** Dtypes of scales and biases, by their names in files. */
const scaleTypes: Readonly<Record<string, Scales['dtype']>> = { F16: 'f16', BF16: 'bf16', F32: 'f32' };

/** @internal The tensors of one layer, read with checks. */
export class Layer {
  readonly checkpoint: Checkpoint;
  readonly name: string;
  readonly #options: ReadOptions;
  readonly #files = new Set<string>();

  constructor(checkpoint: Checkpoint, name: string, options: ReadOptions) {
    this.checkpoint = checkpoint;
    this.name = name;
    this.#options = options;
  }

  /** Where a weight came from, once its tensors have been asked for. */
  source(format: Int4Format): Int4Weight['source'] {
    return { format, layer: this.name, files: [...this.#files] };
  }

  has(part: string): boolean {
    return this.checkpoint.tensors.has(`${this.name}.${part}`);
  }

  /** @throws {CheckpointError} `FILE` where the layer has no such tensor. */
  tensor(part: string): StoredTensor {
    const entry = this.checkpoint.entry(`${this.name}.${part}`);
    this.#files.add(entry.file);
    return entry;
  }

  refuse(code: 'FILE' | 'SHAPE' | 'DTYPE' | 'UNSUPPORTED', part: string, message: string): never {
    throw new CheckpointError(code, this.checkpoint.place(`${this.name}.${part}`), message);
  }

  /** The tensor, unless it is of other types. */
  typed(part: string, ...dtypes: readonly string[]): StoredTensor {
    const tensor = this.tensor(part);
    if (!dtypes.includes(tensor.dtype))
      this.refuse('DTYPE', part, `is ${tensor.dtype}, expected ${dtypes.join(' or ')}`);
    return tensor;
  }

  /** The sizes of a matrix that is not empty. */
  matrix({ name, shape }: StoredTensor): readonly [number, number] {
    if (shape.length === 2 && !shape.includes(0)) return shape as [number, number];
    const expected = 'expected two dimensions, neither empty';
    throw new CheckpointError('SHAPE', this.checkpoint.place(name), `is ${formatShape(shape)}, ${expected}`);
  }

  shaped(part: string, shape: Shape): void {
    const { shape: given } = this.tensor(part);
    if (formatShape(given) !== formatShape(shape))
      this.refuse('SHAPE', part, `is ${formatShape(given)}, expected ${formatShape(shape)}`);
  }

  /** Checks a tensor of floating-point numbers. */
  floats(part: string, shape: Shape): void {
    this.typed(part, ...Object.keys(scaleTypes));
    this.shaped(part, shape);
  }

  bytes(part: string): Promise<Uint8Array> {
    return this.checkpoint.read(`${this.name}.${part}`, this.#options);
  }

  async words(part: string): Promise<Uint32Array> {
    return new Uint32Array((await this.bytes(part)).buffer);
  }

  async ints(part: string): Promise<Int32Array> {
    return new Int32Array((await this.bytes(part)).buffer);
  }

  async scales(part: string): Promise<Scales> {
    const { dtype } = this.typed(part, ...Object.keys(scaleTypes));
    const { buffer } = await this.bytes(part);
    return { data: dtype === 'F32' ? new Float32Array(buffer) : new Uint16Array(buffer), dtype: scaleTypes[dtype]! };
  }

  /**
   * Columns that share a scale.
   * @param claimed by the file of settings: -1 for all columns, null or undefined for no claim.
   */
  group(part: string, k: number, groups: number, claimed: number | null | undefined): number {
    const group = k / groups;
    if (!(group > 0 && group % 32 === 0))
      this.refuse('UNSUPPORTED', part, `has ${groups} groups for ${k} columns, expected groups of a multiple of 32`);
    const wanted = claimed === -1 ? k : (claimed ?? group);
    if (wanted !== group)
      this.refuse(
        'SHAPE',
        part,
        `has ${groups} groups for ${k} columns, expected ${k / wanted} of ${wanted} as the settings say`,
      );
    return group;
  }
}

/** @internal Zero points, one to a byte, as gemmInt4 takes them: none where all are 8. */
export function* packZeros(values: Uint8Array): Pieces<{ zeros?: Uint8Array; symmetric: boolean }> {
  if (values.every((zero) => zero === 8)) return { symmetric: true };
  return { zeros: yield* packPairs(values), symmetric: false };
}

/** @internal Words as the bytes they are. */
export const bytesOf = (words: Uint32Array): Uint8Array => new Uint8Array(words.buffer);
