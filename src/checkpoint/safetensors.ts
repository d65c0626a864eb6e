// safetensors: eight bytes with the length of a JSON header, the header, the data. A model of several files has an index beside them.
// Format: https://github.com/huggingface/safetensors#format
import { access, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { formatShape } from '../shape.js';
import { Checkpoint, type Entry, type MetadataValue } from './checkpoint.js';
import { CheckpointError } from './error.js';
import { isObject, type JsonObject, parseObject } from './json.js';
import { fileError, SourceFile } from './source.js';

/** The limit of the format for a header, bytes; also kept for an index and for the header of GGUF. */
export const mostHeader = 100e6;
const indexName = 'model.safetensors.index.json';

/** Bits of one element. */
const bits: Readonly<Record<string, number>> = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  F64: 64,
  I64: 64,
  U64: 64,
  C64: 64,
};

/** A tensor as a header describes it; `begin` and `end` count from the start of the data. */
interface Described {
  name: string;
  dtype: string;
  shape: number[];
  begin: number;
  end: number;
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isSizes = (value: unknown): value is number[] => Array.isArray(value) && value.every(isSize);

/**
 * @internal What a header says, checked: every number a safe one, bytes as dtype and shape give them, data without gaps or overlaps.
 * @param dataBytes of the file, behind the header.
 */
export function parseHeader(
  file: string,
  header: Uint8Array,
  dataBytes: number,
): { tensors: Described[]; metadata: Map<string, MetadataValue> } {
  if (header[0] !== 0x7b)
    throw new CheckpointError('FILE', { file }, `header begins with byte ${String(header[0])}, expected { (123)`);
  const { __metadata__: given = {}, ...described } = parseObject(file, 'header', header);
  if (!isObject(given) || Object.values(given).some((value) => typeof value !== 'string'))
    throw new CheckpointError('FILE', { file }, '__metadata__ holds more than strings, expected an object of strings');
  const tensors = Object.entries(described).map(([name, value]) => describe(file, name, value));
  let end = 0;
  let before = 'the start of the data';
  for (const tensor of [...tensors].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    const { name, begin } = tensor;
    if (begin !== end)
      throw new CheckpointError(
        'FILE',
        { file, tensor: name },
        `begins at byte ${begin} of the data, expected ${end}, where ${before} ends`,
      );
    end = tensor.end;
    before = name;
  }
  if (end !== dataBytes)
    throw new CheckpointError('FILE', { file }, `has ${dataBytes} bytes of data, expected ${end} as its header says`);
  return { tensors, metadata: new Map(Object.entries(given as Record<string, string>)) };
}

function describe(file: string, tensor: string, value: unknown): Described {
  const refuse = (message: string): never => {
    throw new CheckpointError('FILE', { file, tensor }, message);
  };
  const { dtype, shape, data_offsets: offsets }: JsonObject = isObject(value) ? value : {};
  const width = typeof dtype === 'string' && Object.hasOwn(bits, dtype) ? bits[dtype]! : 0;
  if (width === 0) refuse(`has dtype ${String(dtype)}, expected one of ${Object.keys(bits).join(', ')}`);
  if (!isSizes(shape)) return refuse(`has shape ${JSON.stringify(shape)}, expected a list of whole numbers`);
  if (!isSizes(offsets) || offsets.length !== 2)
    return refuse(`has data_offsets ${JSON.stringify(offsets)}, expected two whole numbers`);
  const [begin, end] = offsets as [number, number];
  // Sizes are 2^53 at most, so products that are not exact are far too large either way.
  const expected = (shape.includes(0) ? 0 : shape.reduce((product, n) => product * n, 1)) * (width / 8);
  if (end - begin !== expected)
    refuse(`has ${end - begin} bytes, expected ${expected} for ${String(dtype)} ${formatShape(shape)}`);
  return { name: tensor, dtype: dtype as string, shape, begin, end };
}

/** The tensors of one file, whose data lie where the header says. */
async function readFile(source: SourceFile): Promise<{ entries: Entry[]; metadata: Map<string, MetadataValue> }> {
  const { path: file, size } = source;
  if (size < 8) throw new CheckpointError('FILE', { file }, `has ${size} bytes, expected a header of 8 and more`);
  const length = new DataView((await source.read(0, 8)).buffer).getBigUint64(0, true);
  const most = Math.min(mostHeader, size - 8);
  if (length < 2n || length > BigInt(most))
    throw new CheckpointError('FILE', { file }, `header length is ${length}, expected 2 to ${most}`);
  const start = 8 + Number(length);
  const { tensors, metadata } = parseHeader(file, await source.read(8, Number(length)), size - start);
  const entries = tensors
    .sort((a, b) => a.begin - b.begin || a.end - b.end)
    .map(({ name, dtype, shape, begin, end }) => ({
      name,
      dtype,
      shape: Object.freeze(shape),
      bytes: end - begin,
      file,
      source,
      position: start + begin,
    }));
  return { entries, metadata };
}

/** Which file of the folder has which tensor, by the index. */
async function readIndex(file: string): Promise<Map<string, string>> {
  const source = await SourceFile.open(file);
  try {
    if (source.size > mostHeader)
      throw new CheckpointError('FILE', { file }, `index has ${source.size} bytes, expected at most ${mostHeader}`);
    const { weight_map: map } = parseObject(file, 'index', await source.read(0, source.size));
    if (!isObject(map)) throw new CheckpointError('FILE', { file }, 'index has no weight_map, expected an object');
    for (const [tensor, shard] of Object.entries(map))
      if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard))
        throw new CheckpointError(
          'FILE',
          { file, tensor },
          `is in ${JSON.stringify(shard)}, expected the name of a file NAME.safetensors beside the index`,
        );
    return new Map(Object.entries(map as Record<string, string>));
  } finally {
    await source.close();
  }
}

/** The index or the only file of tensors in a folder. */
async function findIn(folder: string): Promise<string> {
  const names = await readdir(folder);
  for (const name of [indexName, 'model.safetensors']) if (names.includes(name)) return join(folder, name);
  const files = names.filter((name) => name.endsWith('.safetensors')).sort();
  if (files.length === 1) return join(folder, files[0]!);
  throw new CheckpointError(
    'FILE',
    { file: folder },
    `has ${files.length === 0 ? 'no .safetensors file' : `${files.length} .safetensors files (${files.slice(0, 3).join(', ')} ...)`}, ` +
      `expected ${indexName}, model.safetensors or one file; name one`,
  );
}

async function checkShards(index: string, folder: string, names: readonly string[]): Promise<void> {
  const there = await Promise.all(
    names.map((name) =>
      access(join(folder, name)).then(
        () => true,
        () => false,
      ),
    ),
  );
  const missing = names.filter((_, i) => !there[i]);
  if (missing.length > 0)
    throw new CheckpointError(
      'FILE',
      { file: index },
      `names ${names.length} files of which ${missing.join(', ')} ${missing.length === 1 ? 'is' : 'are'} missing, expected all beside it`,
    );
}

/**
 * Opens a file, a folder, or an index (`model.safetensors.index.json`) of several files. Reads headers alone; tensors are read when
 * they are asked for.
 * @throws {CheckpointError} `FILE` for files that are missing, cut off or whose headers contradict themselves, the file or each other.
 */
export async function openSafetensors(path: string): Promise<Checkpoint> {
  const status = await stat(path).catch((error: unknown) => {
    throw fileError(path, error);
  });
  const file = status.isDirectory() ? await findIn(path) : path;
  const folder = dirname(file);
  const index = file.endsWith('.json') ? await readIndex(file) : undefined;
  const names = index ? [...new Set(index.values())].sort() : [basename(file)];
  if (index) await checkShards(file, folder, names);
  const sources: SourceFile[] = [];
  try {
    const entries = new Map<string, Entry>();
    const metadata = new Map<string, MetadataValue>();
    for (const name of names) {
      const source = await SourceFile.open(index ? join(folder, name) : file);
      sources.push(source);
      const found = await readFile(source);
      for (const [key, value] of found.metadata) metadata.set(key, value);
      for (const entry of found.entries) {
        const other = entries.get(entry.name);
        if (other)
          throw new CheckpointError(
            'FILE',
            { file: source.path, tensor: entry.name },
            `is in ${basename(other.file)} too, expected it once`,
          );
        entries.set(entry.name, entry);
      }
    }
    for (const [tensor, shard] of index ?? [])
      if (basename(entries.get(tensor)?.file ?? '') !== shard)
        throw new CheckpointError('FILE', { file, tensor }, `is not in ${shard}, expected it there as the index says`);
    return new Checkpoint({ format: 'safetensors', path, folder, sources, entries, metadata });
  } catch (error) {
    await Promise.all(sources.map((source) => source.close()));
    throw error;
  }
}
