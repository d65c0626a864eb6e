// An open checkpoint: which tensors it has, where their bytes lie, and reading them.
import { KernwattError } from '../errors.js';
import { nearest } from '../nearest.js';
import type { Shape } from '../shape.js';
import { type Quantization, readQuantization } from './config.js';
import { CheckpointError, type Place } from './error.js';
import type { ReadOptions, SourceFile } from './source.js';

/** A tensor of a checkpoint as its file describes it. */
export interface StoredTensor {
  readonly name: string;
  /** As the file calls it: `F16`, `BF16`, `I32` of safetensors; `F16`, `Q4_0`, `Q6_K` of GGUF. */
  readonly dtype: string;
  /** Row-major, the last dimension contiguous; GGUF stores the reverse. */
  readonly shape: Shape;
  /** Bytes in the file; of a type of GGUF that this library does not read, with the padding behind it. */
  readonly bytes: number;
  readonly file: string;
}

/** @internal A tensor and the place of its bytes. */
export interface Entry extends StoredTensor {
  readonly source: SourceFile;
  readonly position: number;
}

/** @internal What a format finds out about a checkpoint. */
export interface Contents {
  format: 'safetensors' | 'gguf';
  path: string;
  /** Where config.json may lie. */
  folder: string;
  sources: readonly SourceFile[];
  entries: ReadonlyMap<string, Entry>;
  metadata: ReadonlyMap<string, MetadataValue>;
}

export type MetadataValue = string | number | bigint | boolean;

export class Checkpoint {
  readonly format: 'safetensors' | 'gguf';
  /** What was opened. */
  readonly path: string;
  /** Strings of safetensors' `__metadata__`; strings and numbers of GGUF, without its lists (vocabularies). */
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  readonly #contents: Contents;
  #quantization: Promise<Quantization | null> | undefined;

  /** @internal Use `openSafetensors` or `openGguf`. */
  constructor(contents: Contents) {
    this.format = contents.format;
    this.path = contents.path;
    this.metadata = contents.metadata;
    this.#contents = contents;
  }

  /** Every tensor by its name, in the order of the files. */
  get tensors(): ReadonlyMap<string, StoredTensor> {
    return this.#contents.entries;
  }

  /** The files it consists of. */
  get files(): string[] {
    return this.#contents.sources.map(({ path }) => path);
  }

  /**
   * The stored bytes of a tensor, little-endian and row-major, in memory of their own.
   * @throws {CheckpointError} `FILE` where there is no such tensor, or the file became shorter; KernwattError `OUT_OF_MEMORY`, `DISPOSED`.
   */
  async read(name: string, options?: ReadOptions): Promise<Uint8Array> {
    const { source, position, bytes } = this.entry(name);
    return source.read(position, bytes, name, options);
  }

  /**
   * How config.json, quantize_config.json or quant_config.json beside the file say that it was quantised; null where none says so.
   * @throws {CheckpointError} `UNSUPPORTED` for a method, width or packing that this library does not read; `FILE` for contradictions.
   */
  quantization(): Promise<Quantization | null> {
    const { format, folder } = this.#contents;
    this.#quantization ??= format === 'gguf' ? Promise.resolve(null) : readQuantization(folder);
    return this.#quantization;
  }

  /** Closes the files once reads under way are done; reads fail with `DISPOSED` afterwards. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#contents.sources.map((source) => source.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal Where a tensor lies. */
  entry(name: string): Entry {
    const entry = this.#contents.entries.get(name);
    if (entry) return entry;
    const like = nearest(name, this.tensors.keys());
    throw new CheckpointError(
      'FILE',
      { file: this.path, tensor: name },
      `is not among its ${this.tensors.size} tensors, expected one of them${like ? `; did you mean ${like}?` : ''}`,
    );
  }

  /** @internal For errors about a tensor or a layer. */
  place(tensor: string): Place {
    return { file: this.#contents.entries.get(tensor)?.file ?? this.path, tensor };
  }
}

/** @internal Throws unless `checkpoint` is one. */
export function checkCheckpoint(where: string, checkpoint: unknown): asserts checkpoint is Checkpoint {
  if (checkpoint instanceof Checkpoint) return;
  throw new KernwattError(
    'ARGUMENT',
    `${where}: checkpoint is ${typeof checkpoint}, expected what openSafetensors() or openGguf() gives`,
  );
}
