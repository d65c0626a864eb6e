// GGUF, versions 2 and 3: a header of keys and tensors, then the data, every tensor padded to the alignment.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
import { dirname } from 'node:path';
import { formatShape } from '../shape.js';
import { Checkpoint, type Entry, type MetadataValue } from './checkpoint.js';
import { CheckpointError } from './error.js';
import { mostHeader } from './safetensors.js';
import { SourceFile } from './source.js';

/** Types by their number in the file; those with a size are read. Elements of a block, bytes of a block. */
const types = new Map<number, { name: string; block?: readonly [elements: number, bytes: number] }>([
  [0, { name: 'F32', block: [1, 4] }],
  [1, { name: 'F16', block: [1, 2] }],
  [2, { name: 'Q4_0', block: [32, 18] }],
  [3, { name: 'Q4_1', block: [32, 20] }],
  [6, { name: 'Q5_0' }],
  [7, { name: 'Q5_1' }],
  [8, { name: 'Q8_0' }],
  [9, { name: 'Q8_1' }],
  [10, { name: 'Q2_K' }],
  [11, { name: 'Q3_K' }],
  [12, { name: 'Q4_K' }],
  [13, { name: 'Q5_K' }],
  [14, { name: 'Q6_K' }],
  [15, { name: 'Q8_K' }],
  [16, { name: 'IQ2_XXS' }],
  [17, { name: 'IQ2_XS' }],
  [18, { name: 'IQ3_XXS' }],
  [19, { name: 'IQ1_S' }],
  [20, { name: 'IQ4_NL' }],
  [21, { name: 'IQ3_S' }],
  [22, { name: 'IQ2_S' }],
  [23, { name: 'IQ4_XS' }],
  [24, { name: 'I8', block: [1, 1] }],
  [25, { name: 'I16', block: [1, 2] }],
  [26, { name: 'I32', block: [1, 4] }],
  [27, { name: 'I64', block: [1, 8] }],
  [28, { name: 'F64', block: [1, 8] }],
  [29, { name: 'IQ1_M' }],
  [30, { name: 'BF16', block: [1, 2] }],
  [34, { name: 'TQ1_0' }],
  [35, { name: 'TQ2_0' }],
  [39, { name: 'MXFP4' }],
]);

/** A tensor as a header describes it; `offset` counts from the start of the data. */
interface Described {
  name: string;
  dtype: string;
  shape: number[];
  offset: number;
  /** Undefined for types of unknown size. */
  bytes: number | undefined;
}

interface Header {
  tensors: Described[];
  metadata: Map<string, MetadataValue>;
  alignment: number;
  /** Where the data begin in the file. */
  dataStart: number;
}

/** The window over the start of the file is too short; the file itself is not. */
class Short extends Error {}

/** Reads little-endian values from the window, and refuses what would reach beyond the file. */
class Cursor {
  position = 0;
  readonly #view: DataView;
  readonly #text = new TextDecoder('utf-8', { fatal: true });
  readonly file: string;
  readonly size: number;

  constructor(file: string, window: Uint8Array, size: number) {
    this.#view = new DataView(window.buffer, window.byteOffset, window.byteLength);
    this.file = file;
    this.size = size;
  }

  refuse(message: string, tensor?: string): never {
    throw new CheckpointError('FILE', { file: this.file, tensor }, message);
  }

  /** Moves on; the place before. */
  take(what: string, bytes: number): number {
    const at = this.position;
    if (bytes > this.size - at)
      this.refuse(
        `header has ${what} of ${bytes} bytes at byte ${at}, expected at most ${this.size - at}, what is left`,
      );
    if (at + bytes > mostHeader) this.refuse(`header is longer than ${mostHeader} bytes, expected at most that`);
    if (at + bytes > this.#view.byteLength) throw new Short();
    this.position = at + bytes;
    return at;
  }

  u32 = (what: string): number => this.#view.getUint32(this.take(what, 4), true);
  u64 = (what: string): bigint => this.#view.getBigUint64(this.take(what, 8), true);

  /** A u64 that counts something. */
  count(what: string): number {
    const value = this.u64(what);
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      this.refuse(`header has ${value} for ${what}, expected at most 2^53 - 1`);
    return Number(value);
  }

  string(what: string): string {
    const bytes = this.count(`the length of ${what}`);
    const at = this.take(what, bytes);
    try {
      return this.#text.decode(new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, bytes));
    } catch {
      return this.refuse(`header has ${what} at byte ${at} that is not UTF-8, expected text`);
    }
  }

  /** A value of the type with that number; undefined for lists, which are passed over. */
  value(key: string, type: number): MetadataValue | undefined {
    const { [type]: scalar } = scalars;
    if (scalar) return scalar.read(this.#view, this.take(`the value of ${key}`, scalar.bytes));
    if (type === 8) return this.string(`the value of ${key}`);
    if (type !== 9) this.refuse(`header has type ${type} for ${key}, expected 0 to 12`);
    const of = this.u32(`the type of ${key}`);
    const count = this.count(`the length of ${key}`);
    const bytes = scalars[of]?.bytes;
    if (bytes !== undefined) this.take(`the values of ${key}`, count * bytes);
    else if (of === 8) for (let i = 0; i < count; ++i) this.take('a string', this.count('the length of a string'));
    else this.refuse(`header has a list of type ${of} for ${key}, expected numbers or strings`);
    return undefined;
  }
}

const whole = (value: bigint): number | bigint => (Number.isSafeInteger(Number(value)) ? Number(value) : value);
/** By the number of the type. */
const scalars: Readonly<Record<number, { bytes: number; read: (view: DataView, at: number) => MetadataValue }>> = {
  0: { bytes: 1, read: (view, at) => view.getUint8(at) },
  1: { bytes: 1, read: (view, at) => view.getInt8(at) },
  2: { bytes: 2, read: (view, at) => view.getUint16(at, true) },
  3: { bytes: 2, read: (view, at) => view.getInt16(at, true) },
  4: { bytes: 4, read: (view, at) => view.getUint32(at, true) },
  5: { bytes: 4, read: (view, at) => view.getInt32(at, true) },
  6: { bytes: 4, read: (view, at) => view.getFloat32(at, true) },
  7: { bytes: 1, read: (view, at) => view.getUint8(at) !== 0 },
  10: { bytes: 8, read: (view, at) => whole(view.getBigUint64(at, true)) },
  11: { bytes: 8, read: (view, at) => whole(view.getBigInt64(at, true)) },
  12: { bytes: 8, read: (view, at) => view.getFloat64(at, true) },
};

/**
 * @internal What a header says, checked against the size of the file. Null where `window`, the beginning of the file, is too short to tell.
 */
export function parseHeader(file: string, window: Uint8Array, size: number): Header | null {
  try {
    return read(new Cursor(file, window, size));
  } catch (error) {
    if (error instanceof Short) return null;
    throw error;
  }
}

function read(cursor: Cursor): Header {
  const { file } = cursor;
  const magic = cursor.u32('the magic number');
  if (magic !== 0x46554747)
    cursor.refuse(
      `begins with ${magic.toString(16).padStart(8, '0')} (little-endian), expected 46554747, which spells GGUF`,
    );
  const version = cursor.u32('the version');
  if (version !== 2 && version !== 3)
    throw new CheckpointError(
      'UNSUPPORTED',
      { file },
      `is GGUF version ${version}, expected 2 or 3 in little-endian order`,
    );
  const tensorCount = cursor.count('the number of tensors');
  const keyCount = cursor.count('the number of keys');
  const metadata = new Map<string, MetadataValue>();
  const seen = new Set<string>();
  for (let i = 0; i < keyCount; ++i) {
    const key = cursor.string('a key');
    if (seen.has(key)) cursor.refuse(`header has the key ${key} twice, expected every key once`);
    seen.add(key);
    const value = cursor.value(key, cursor.u32(`the type of ${key}`));
    if (value !== undefined) metadata.set(key, value);
  }
  const tensors: Described[] = [];
  for (let i = 0; i < tensorCount; ++i) tensors.push(describe(cursor));
  const alignment = metadata.get('general.alignment') ?? 32;
  if (
    typeof alignment !== 'number' ||
    !(alignment >= 1 && alignment <= 2 ** 20 && Number.isInteger(Math.log2(alignment)))
  )
    cursor.refuse(`header has general.alignment ${alignment}, expected a power of two up to 2^20`);
  const dataStart = align(cursor.position, alignment as number);
  return { tensors, metadata, alignment: alignment as number, dataStart };
}

const align = (position: number, alignment: number): number => Math.ceil(position / alignment) * alignment;

function describe(cursor: Cursor): Described {
  const name = cursor.string('the name of a tensor');
  const rank = cursor.u32(`the rank of ${name}`);
  if (rank > 4) cursor.refuse(`has ${rank} dimensions, expected at most 4`, name);
  const shape = Array.from({ length: rank }, () => cursor.count(`a dimension of ${name}`)).reverse();
  const type = cursor.u32(`the type of ${name}`);
  const { name: dtype, block } = types.get(type) ?? { name: `type ${type}` };
  const offset = cursor.count(`the offset of ${name}`);
  if (!block) return { name, dtype, shape, offset, bytes: undefined };
  const [elements, bytes] = block;
  if ((shape.at(-1) ?? 1) % elements !== 0)
    cursor.refuse(`has rows of ${shape.at(-1)}, expected a multiple of ${elements} for ${dtype}`, name);
  const size = shape.includes(0) ? 0 : shape.reduce((product, n) => product * n, 1);
  return { name, dtype, shape, offset, bytes: (size / elements) * bytes };
}

/** Where every tensor lies; throws where they overlap, leave gaps beyond padding, or reach beyond the file. */
function place({ tensors, alignment, dataStart }: Header, source: SourceFile): Map<string, Entry> {
  const { path: file, size } = source;
  const entries = new Map<string, Entry>();
  const sorted = [...tensors].sort((a, b) => a.offset - b.offset || (a.bytes ?? 1) - (b.bytes ?? 1));
  let expected: number | undefined = 0;
  for (const [i, { name, dtype, shape, offset, bytes }] of sorted.entries()) {
    const refuse = (message: string): never => {
      throw new CheckpointError('FILE', { file, tensor: name }, message);
    };
    if (offset % alignment !== 0) refuse(`begins at byte ${offset} of the data, expected a multiple of ${alignment}`);
    if (expected !== undefined && offset !== expected)
      refuse(`begins at byte ${offset} of the data, expected ${expected}, where the tensor before it ends`);
    const end = sorted[i + 1]?.offset ?? Math.max(size - dataStart, offset);
    const extent = bytes ?? end - offset;
    const position = dataStart + offset;
    if (position + extent > size)
      refuse(`is ${dtype} ${formatShape(shape)} up to byte ${position + extent}, expected the file's ${size} at most`);
    if (entries.has(name)) refuse('is in the header twice, expected it once');
    entries.set(name, { name, dtype, shape: Object.freeze(shape), bytes: extent, file, source, position });
    expected = bytes === undefined ? undefined : align(offset + bytes, alignment);
  }
  return entries;
}

/**
 * Opens a file of GGUF, version 2 or 3. Reads the header alone. Tensors of every type are listed; F32, F16, BF16, Q4_0, Q4_1 and
 * integers can be read, others are `UNSUPPORTED` when they are asked for.
 * @throws {CheckpointError} `FILE` for files that are missing, cut off, or whose header contradicts itself or the file.
 */
export async function openGguf(path: string): Promise<Checkpoint> {
  const source = await SourceFile.open(path);
  try {
    // Vocabularies make headers of megabytes; nobody says how many beforehand.
    let header: Header | null = null;
    for (let bytes = 2 ** 20; header === null; bytes *= 4)
      header = parseHeader(path, await source.read(0, Math.min(bytes, source.size, mostHeader)), source.size);
    const entries = place(header, source);
    const { metadata } = header;
    return new Checkpoint({ format: 'gguf', path, folder: dirname(path), sources: [source], entries, metadata });
  } catch (error) {
    await source.close();
    throw error;
  }
}
