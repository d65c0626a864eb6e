// Checkpoints made by hand: the bytes of safetensors and GGUF as their formats say, and the packings of GPTQ, AWQ, compressed-tensors
// and GGUF's blocks, element by element by their published formulas. Shares nothing with the importers.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { randomSource } from '../../src/random.js';

/** A folder of this test file's own. */
export function scratch(): string {
  const folder = mkdtempSync(join(tmpdir(), 'kernwatt-checkpoint-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  return folder;
}

export interface Stored {
  dtype: string;
  shape: readonly number[];
  data: ArrayBufferView;
}

const bytesOf = (data: ArrayBufferView) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

/** A safetensors file around any header text. */
export function framed(header: string, data: Uint8Array = new Uint8Array()): Buffer {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

export function safetensors(tensors: Readonly<Record<string, Stored>>, metadata?: Record<string, string>): Buffer {
  const header: Record<string, unknown> = metadata ? { __metadata__: metadata } : {};
  const parts: Buffer[] = [];
  let at = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
    parts.push(bytesOf(data));
  }
  return framed(JSON.stringify(header), Buffer.concat(parts));
}

/** A folder with model.safetensors and, if given, a config.json with these settings of a quantiser. */
export function model(parent: string, tensors: Readonly<Record<string, Stored>>, quantization?: object): string {
  const folder = mkdtempSync(join(parent, 'model-'));
  writeFileSync(join(folder, 'model.safetensors'), safetensors(tensors));
  if (quantization) writeFileSync(join(folder, 'config.json'), JSON.stringify({ quantization_config: quantization }));
  return folder;
}

/** Little-endian values one after the other. */
export class Writer {
  readonly #parts: Buffer[] = [];
  u32(value: number): this {
    const b = Buffer.alloc(4);
    b.writeUInt32LE(value);
    return this.raw(b);
  }
  u64(value: number | bigint): this {
    const b = Buffer.alloc(8);
    b.writeBigUInt64LE(BigInt(value));
    return this.raw(b);
  }
  text(value: string): this {
    return this.u64(Buffer.byteLength(value)).raw(Buffer.from(value));
  }
  raw(bytes: Uint8Array): this {
    this.#parts.push(Buffer.from(bytes));
    return this;
  }
  pad(alignment: number): this {
    const { length } = this.bytes();
    return this.raw(Buffer.alloc((alignment - (length % alignment)) % alignment));
  }
  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export interface Block {
  /** Number of the type in ggml. */
  type: number;
  /** Row-major, as everywhere here; written in reverse. */
  shape: readonly number[];
  data: Uint8Array;
  /** Instead of the right one. */
  offset?: number;
}

export interface GgufOptions {
  version?: number;
  alignment?: number;
  /** Written before the tensors; each takes one key. */
  keys?: readonly ((writer: Writer) => void)[];
}

export function gguf(
  tensors: Readonly<Record<string, Block>>,
  { version = 3, alignment, keys = [] }: GgufOptions = {},
): Buffer {
  const writer = new Writer().raw(Buffer.from('GGUF')).u32(version).u64(Object.keys(tensors).length);
  const all = alignment ? [...keys, (w: Writer) => w.text('general.alignment').u32(4).u32(alignment)] : keys;
  writer.u64(all.length);
  for (const key of all) key(writer);
  const step = alignment ?? 32;
  let at = 0;
  for (const [name, { type, shape, data, offset }] of Object.entries(tensors)) {
    writer.text(name).u32(shape.length);
    for (const n of [...shape].reverse()) writer.u64(n);
    writer.u32(type).u64(offset ?? at);
    at += Math.ceil(data.length / step) * step;
  }
  writer.pad(step);
  for (const { data } of Object.values(tensors)) writer.raw(data).pad(step);
  return writer.bytes();
}

/** Bits of positive normal f16 numbers, and their values. */
export const halfValue = (bits: number) =>
  (1 + (bits & 1023) / 1024) * 2 ** (((bits >>> 10) & 31) - 15) * (bits >>> 15 ? -1 : 1);

/** A layer as its quantiser knew it: everything by row and column, nothing packed. */
export interface Truth {
  rows: number;
  k: number;
  groups: number;
  /** By row, then column. */
  q: number[][];
  /** By group, then row; whole numbers from 0 to 15. */
  zero: number[][];
  /** By group, then row: bits of f16. */
  scale: number[][];
  /** The group of each column. */
  groupOf: number[];
}

export function truth(
  rows: number,
  k: number,
  groups: number,
  { seed = 1, symmetric = false, actOrder = false } = {},
): Truth {
  const next = randomSource(seed);
  const below = (n: number) => Math.floor(next() * n);
  const table = (a: number, b: number, f: () => number) =>
    Array.from({ length: a }, () => Array.from({ length: b }, f));
  const groupOf = Array.from({ length: k }, (_, i) => Math.floor(i / (k / groups)));
  if (actOrder)
    for (let i = k - 1; i > 0; --i) {
      const j = below(i + 1);
      [groupOf[i], groupOf[j]] = [groupOf[j]!, groupOf[i]!];
    }
  const q = table(rows, k, () => below(16));
  const zero = table(groups, rows, () => (symmetric ? 8 : below(16)));
  const scale = table(groups, rows, () => 0x2000 + below(0x1000) + 0x8000 * below(2));
  return { rows, k, groups, q, zero, scale, groupOf };
}

/** weight[r][i] = scale * (q - zero), as every format defines it; `value` of the bits of a scale. */
export const weights = ({ rows, k, q, zero, scale, groupOf }: Truth, value = halfValue): number[] =>
  Array.from({ length: rows * k }, (_, e) => {
    const [r, i] = [Math.floor(e / k), e % k];
    const g = groupOf[i]!;
    return value(scale[g]![r]!) * (q[r]![i]! - zero[g]![r]!);
  });

const put = (words: Uint32Array, index: number, nibble: number, value: number) => {
  words[index] = (words[index]! | (value << (4 * nibble))) >>> 0;
};
const i32 = (shape: readonly number[], words: Uint32Array | Int32Array): Stored => ({
  dtype: 'I32',
  shape,
  data: words,
});

const scalesByGroup = ({ groups, rows, scale }: Truth): Stored => ({
  dtype: 'F16',
  shape: [groups, rows],
  data: Uint16Array.from(scale.flat()),
});

/** GPTQ: word (a, n) of qweight holds q[8 a + i, n] in nibble i; qzeros holds zero - less at 8 b + i, modulo 16. */
export function gptq(layer: string, t: Truth, less: 0 | 1): Record<string, Stored> {
  const { rows, k, groups } = t;
  const qweight = new Uint32Array((k / 8) * rows);
  const qzeros = new Uint32Array((groups * rows) / 8);
  for (let i = 0; i < k; ++i)
    for (let n = 0; n < rows; ++n) put(qweight, Math.floor(i / 8) * rows + n, i % 8, t.q[n]![i]!);
  for (let g = 0; g < groups; ++g)
    for (let n = 0; n < rows; ++n)
      put(qzeros, g * (rows / 8) + Math.floor(n / 8), n % 8, (t.zero[g]![n]! - less + 16) % 16);
  return {
    [`${layer}.qweight`]: i32([k / 8, rows], qweight),
    [`${layer}.qzeros`]: i32([groups, rows / 8], qzeros),
    [`${layer}.scales`]: scalesByGroup(t),
    [`${layer}.g_idx`]: i32([k], Int32Array.from(t.groupOf)),
  };
}

/** AWQ: nibble j of word (i, b) of qweight holds q[i, 8 b + order[j]], of qzeros likewise. */
export function awq(layer: string, t: Truth): Record<string, Stored> {
  const order = [0, 2, 4, 6, 1, 3, 5, 7];
  const { rows, k, groups } = t;
  const qweight = new Uint32Array((k * rows) / 8);
  const qzeros = new Uint32Array((groups * rows) / 8);
  for (let b = 0; b < rows / 8; ++b)
    order.forEach((place, j) => {
      for (let i = 0; i < k; ++i) put(qweight, (i * rows) / 8 + b, j, t.q[8 * b + place]![i]!);
      for (let g = 0; g < groups; ++g) put(qzeros, (g * rows) / 8 + b, j, t.zero[g]![8 * b + place]!);
    });
  return {
    [`${layer}.qweight`]: i32([k, rows / 8], qweight),
    [`${layer}.qzeros`]: i32([groups, rows / 8], qzeros),
    [`${layer}.scales`]: scalesByGroup(t),
  };
}

/** compressed-tensors: numbers from -8 to 7 stored plus 8; word (n, a) holds columns 8 a on, packed zero points rows 8 b on. */
export function compressed(
  layer: string,
  t: Truth,
  { zeros = 'none', gIdx = false }: { zeros?: 'none' | 'packed' | 'bytes'; gIdx?: boolean } = {},
): Record<string, Stored> {
  const { rows, k, groups } = t;
  const packed = new Uint32Array((rows * k) / 8);
  for (let n = 0; n < rows; ++n)
    for (let i = 0; i < k; ++i) put(packed, (n * k) / 8 + Math.floor(i / 8), i % 8, t.q[n]![i]!);
  const tensors: Record<string, Stored> = {
    [`${layer}.weight_packed`]: i32([rows, k / 8], packed),
    [`${layer}.weight_shape`]: { dtype: 'I64', shape: [2], data: BigInt64Array.of(BigInt(rows), BigInt(k)) },
    [`${layer}.weight_scale`]: {
      dtype: 'F16',
      shape: [rows, groups],
      data: Uint16Array.from({ length: rows * groups }, (_, e) => t.scale[e % groups]![Math.floor(e / groups)]!),
    },
  };
  if (gIdx) tensors[`${layer}.weight_g_idx`] = i32([k], Int32Array.from(t.groupOf));
  const zeroPoint = new Uint32Array((groups * rows) / 8);
  for (let n = 0; n < rows; ++n)
    for (let g = 0; g < groups; ++g) put(zeroPoint, Math.floor(n / 8) * groups + g, n % 8, t.zero[g]![n]!);
  if (zeros === 'packed') tensors[`${layer}.weight_zero_point`] = i32([rows / 8, groups], zeroPoint);
  if (zeros === 'bytes')
    tensors[`${layer}.weight_zero_point`] = {
      dtype: 'I8',
      shape: [rows, groups],
      data: Int8Array.from({ length: rows * groups }, (_, e) => t.zero[e % groups]![Math.floor(e / groups)]! - 8),
    };
  return tensors;
}

/** Q4_0, or Q4_1 with m = -d * zero: blocks of 32, f16 before the codes, element j low and j + 16 high in byte j. */
export function blocks(
  { rows, k, groups, q, zero, scale }: Truth,
  type: 'Q4_0' | 'Q4_1',
  minimum: (d: number, z: number) => number,
): Block {
  const head = type === 'Q4_0' ? 2 : 4;
  const data = Buffer.alloc(rows * groups * (head + 16));
  for (let r = 0; r < rows; ++r)
    for (let g = 0; g < groups; ++g) {
      const at = (r * groups + g) * (head + 16);
      data.writeUInt16LE(scale[g]![r]!, at);
      if (type === 'Q4_1') data.writeUInt16LE(minimum(scale[g]![r]!, zero[g]![r]!), at + 2);
      for (let j = 0; j < 16; ++j) data[at + head + j] = q[r]![32 * g + j]! + 16 * q[r]![32 * g + j + 16]!;
    }
  return { type: type === 'Q4_0' ? 2 : 3, shape: [rows, k], data };
}
