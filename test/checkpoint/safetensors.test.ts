// safetensors: what is read back is what was written, and every lie of a header, an index or a file is an error that names it.
import { mkdirSync, mkdtempSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openSafetensors } from '../../src/checkpoint/index.js';
import { framed, type Stored, safetensors, scratch } from './files.js';
import { fuzzed } from './fuzz.js';

const folder = scratch();
let count = 0;
const write = (bytes: Uint8Array, name = `file-${++count}.safetensors`) => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
const f32 = (...values: number[]): Stored => ({
  dtype: 'F32',
  shape: [values.length],
  data: Float32Array.from(values),
});
const refused = (message: string | RegExp, tensor: string | null = null) =>
  expect.objectContaining({
    code: 'ERR_KERNWATT_FILE',
    tensor,
    file: expect.stringContaining(folder),
    message: expect.stringMatching(message),
  });

describe('one file', () => {
  test('tensors, dtypes, shapes, metadata and bytes', async () => {
    const tensors = {
      'a.weight': { dtype: 'BF16', shape: [2, 3], data: Uint16Array.of(1, 2, 3, 4, 5, 6) },
      scalar: { dtype: 'I64', shape: [], data: BigInt64Array.of(-7n) },
      empty: { dtype: 'F16', shape: [0, 4], data: new Uint16Array() },
      nibbles: { dtype: 'F4', shape: [4], data: Uint8Array.of(0x21, 0x43) },
      __proto__x: f32(1.5),
    };
    await using checkpoint = await openSafetensors(write(safetensors(tensors, { format: 'pt' })));
    expect(checkpoint.format).toBe('safetensors');
    expect([...checkpoint.tensors.keys()].sort()).toEqual(Object.keys(tensors).sort());
    expect([...checkpoint.metadata]).toEqual([['format', 'pt']]);
    for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
      expect(checkpoint.tensors.get(name)).toMatchObject({ name, dtype, shape, bytes: data.byteLength });
      expect(await checkpoint.read(name)).toEqual(new Uint8Array(data.buffer));
    }
    expect(await checkpoint.quantization()).toBeNull();
  });

  test('a header padded with spaces, its tensors in another order than the data', async () => {
    const header = `{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},\n "a" : {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   `;
    await using checkpoint = await openSafetensors(write(framed(header, Uint8Array.of(10, 20))));
    expect([...checkpoint.tensors.keys()]).toEqual(['a', 'b']);
    expect([...(await checkpoint.read('b'))]).toEqual([20]);
  });

  test('a name that is not there, with the nearest; reads after close; an aborted read', async () => {
    const checkpoint = await openSafetensors(write(safetensors({ 'model.norm.weight': f32(1) })));
    await expect(checkpoint.read('model.norm.weigth')).rejects.toThrow(
      refused(/is not among its 1 tensors.*did you mean model\.norm\.weight\?/, 'model.norm.weigth'),
    );
    const reason = new Error('no longer wanted');
    await expect(checkpoint.read('model.norm.weight', { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    await checkpoint.close();
    await checkpoint.close();
    await expect(checkpoint.read('model.norm.weight')).rejects.toMatchObject({ code: 'ERR_KERNWATT_DISPOSED' });
  });

  test('a file that became shorter after it was opened', async () => {
    const path = write(safetensors({ a: f32(1, 2), b: f32(3, 4) }));
    await using checkpoint = await openSafetensors(path);
    const bytes = checkpoint.tensors.get('b')!.bytes;
    truncateSync(path, safetensors({ a: f32(1, 2), b: f32(3, 4) }).length - bytes / 2);
    expect(await checkpoint.read('a')).toEqual(new Uint8Array(Float32Array.of(1, 2).buffer));
    await expect(checkpoint.read('b')).rejects.toThrow(refused(/b ends at byte \d+ of the file, expected \d+/, 'b'));
  });

  test('files that are not there, or no files', async () => {
    await expect(openSafetensors(join(folder, 'nowhere'))).rejects.toThrow(
      refused(/is missing, expected a readable file/),
    );
    mkdirSync(join(folder, 'none'));
    await expect(openSafetensors(join(folder, 'none'))).rejects.toThrow(refused(/has no \.safetensors file/));
    await expect(openSafetensors('/dev/null')).rejects.toThrow('/dev/null: is no regular file, expected one');
  });
});

describe('a header is refused that', () => {
  const one = (dtype: unknown, shape: unknown, offsets: unknown) =>
    JSON.stringify({ w: { dtype, shape, data_offsets: offsets } });
  const data = new Uint8Array(16);
  const length = (value: bigint) => {
    const bytes = framed('{}', data);
    bytes.writeBigUInt64LE(value);
    return bytes;
  };
  const wide = (n: number, shape: number[] = [n / 2, 2]) => one('F32', shape, [0, n * 4]);
  test.each<[string, Uint8Array, RegExp, string?]>([
    ['is not there', Uint8Array.of(1, 2, 3), /has 3 bytes, expected a header of 8 and more/],
    ['is longer than the file', length(19n), /header length is 19, expected 2 to 18/],
    ['is longer than any file', length(2n ** 64n - 1n), /header length is 18446744073709551615, expected 2 to 18/],
    ['is empty', length(0n), /header length is 0, expected 2 to 18/],
    ['is no object', framed('[1]', data), /header begins with byte 91, expected \{/],
    ['is no JSON', framed('{"w": }', data), /header is not JSON in UTF-8 \(.*\), expected a JSON object/],
    ['is no UTF-8', framed('{"w": 1}').fill(0xff, 10, 11), /header is not JSON in UTF-8/],
    ['is nested without end', framed(`{"w":${'['.repeat(100_000)}`), /header is not JSON in UTF-8/],
    ['has a tensor twice', framed(`{"w": 1, "\\u0077": ${one('F32', [4], [0, 16])}}`, data), /has the key w twice/],
    ['has a key of a tensor twice', framed('{"w":{"dtype":"F32","dtype":"U8"}}', data), /has the key dtype twice/],
    ['has other metadata than strings', framed('{"__metadata__":{"a":1}}'), /__metadata__ holds more than strings/],
    ['has metadata of no object', framed('{"__metadata__":[]}'), /__metadata__ holds more than strings/],
    ['describes a tensor by a number', framed('{"w":7}', data), /w has dtype undefined, expected one of F4/, 'w'],
    ['has an unknown dtype', framed(one('F7', [4], [0, 16]), data), /w has dtype F7, expected one of F4/, 'w'],
    ['has a dtype of Object.prototype', framed(one('toString', [4], [0, 16]), data), /w has dtype toString/, 'w'],
    ['has a negative size', framed(one('F32', [-4], [0, 16]), data), /w has shape \[-4\], expected a list/, 'w'],
    ['has a fractional size', framed(one('F32', [1.5], [0, 16]), data), /w has shape \[1\.5\]/, 'w'],
    [
      'has a size beyond 2^53',
      framed('{"w":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,16]}}', data),
      /w has shape \[9007199254740992\]/,
      'w',
    ],
    ['has no shape', framed(one('F32', undefined, [0, 16]), data), /w has shape undefined/, 'w'],
    ['has one offset', framed(one('F32', [4], [0]), data), /w has data_offsets \[0\], expected two/, 'w'],
    ['has offsets of text', framed(one('F32', [4], ['0', '16']), data), /w has data_offsets \["0","16"\]/, 'w'],
    [
      'has offsets out of order',
      framed(one('F32', [4], [16, 0]), data),
      /w has -16 bytes, expected 16 for F32 \[4\]/,
      'w',
    ],
    [
      'has bytes that are not its shape',
      framed(one('F32', [3], [0, 16]), data),
      /w has 16 bytes, expected 12 for F32 \[3\]/,
      'w',
    ],
    [
      'has a product that overflows',
      framed(one('F32', [2 ** 40, 2 ** 40], [0, 16]), data),
      /w has 16 bytes, expected 4\.8/,
      'w',
    ],
    [
      'has half a byte',
      framed(one('F4', [3], [0, 1]), data.slice(0, 1)),
      /w has 1 bytes, expected 1\.5 for F4 \[3\]/,
      'w',
    ],
    ['reaches beyond the file', framed(wide(8), data), /has 16 bytes of data, expected 32 as its header says/],
    ['leaves bytes at the end', framed(wide(2), data), /has 16 bytes of data, expected 8 as its header says/],
    [
      'leaves a hole at the start',
      framed(one('F32', [2], [8, 16]), data),
      /w begins at byte 8 of the data, expected 0, where the start/,
      'w',
    ],
  ])('%s', async (_, bytes, message, tensor) => {
    await expect(openSafetensors(write(bytes))).rejects.toThrow(refused(message, tensor));
  });

  const two = (a: [number, number], b: [number, number]) =>
    framed(
      JSON.stringify({
        a: { dtype: 'U8', shape: [a[1] - a[0]], data_offsets: a },
        b: { dtype: 'U8', shape: [b[1] - b[0]], data_offsets: b },
      }),
      data,
    );
  test('has tensors that overlap, or a hole between them', async () => {
    await expect(openSafetensors(write(two([0, 10], [8, 16])))).rejects.toThrow(
      refused(/b begins at byte 8 of the data, expected 10, where a ends/, 'b'),
    );
    await expect(openSafetensors(write(two([0, 6], [8, 16])))).rejects.toThrow(
      refused(/b begins at byte 8 of the data, expected 6, where a ends/, 'b'),
    );
    await expect(openSafetensors(write(two([0, 16], [0, 16])))).rejects.toThrow(refused(/begins at byte 0/, 'b'));
  });

  test('is longer than 100 MB, without reading it', async () => {
    const path = write(length(100_000_001n));
    truncateSync(path, 200e6);
    const before = process.memoryUsage().arrayBuffers;
    await expect(openSafetensors(path)).rejects.toThrow(refused(/header length is 100000001, expected 2 to 100000000/));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1e6);
  });
});

describe('an index', () => {
  const sharded = (index: unknown, files: Record<string, Record<string, Stored>>) => {
    const path = mkdtempSync(join(folder, 'sharded-'));
    for (const [name, tensors] of Object.entries(files))
      writeFileSync(join(path, name), safetensors(tensors, { from: name }));
    writeFileSync(
      join(path, 'model.safetensors.index.json'),
      typeof index === 'string' ? index : JSON.stringify(index),
    );
    return path;
  };
  const [one, two] = ['model-1.safetensors', 'model-2.safetensors'];

  test('joins its files, by folder or by name', async () => {
    const path = sharded(
      { metadata: { total_size: 12 }, weight_map: { a: one, b: two } },
      { [one]: { a: f32(1) }, [two]: { b: f32(2, 3) } },
    );
    for (const name of [path, join(path, 'model.safetensors.index.json')]) {
      await using checkpoint = await openSafetensors(name);
      expect(checkpoint.files.map((file) => basename(file))).toEqual([one, two]);
      expect(await checkpoint.read('b')).toEqual(new Uint8Array(Float32Array.of(2, 3).buffer));
      expect(basename(checkpoint.tensors.get('a')!.file)).toBe(one);
    }
  });

  test.each<[string, unknown, Record<string, Record<string, Stored>>, RegExp, string?]>([
    [
      'with files missing',
      { weight_map: { a: one, b: two } },
      { [one]: { a: f32(1) } },
      /names 2 files of which model-2\.safetensors is missing/,
    ],
    [
      'with a tensor absent',
      { weight_map: { a: one, b: one } },
      { [one]: { a: f32(1) } },
      /b is not in model-1\.safetensors/,
      'b',
    ],
    [
      'with a tensor in another file',
      { weight_map: { a: two, b: one } },
      { [one]: { a: f32(1) }, [two]: { b: f32(1) } },
      /a is not in model-2\.safetensors/,
      'a',
    ],
    [
      'with a tensor in two files',
      { weight_map: { a: one, b: two } },
      { [one]: { a: f32(1) }, [two]: { a: f32(1), b: f32(2) } },
      /a is in model-1\.safetensors too, expected it once/,
      'a',
    ],
    [
      'that leaves the folder',
      { weight_map: { a: '../model-1.safetensors' } },
      {},
      /a is in "\.\.\/model-1\.safetensors", expected the name of a file/,
      'a',
    ],
    ['that names no file', { weight_map: { a: 7 } }, {}, /a is in 7, expected the name of a file/, 'a'],
    ['without a map', { metadata: {} }, {}, /index has no weight_map, expected an object/],
    [
      'with a tensor twice',
      '{"weight_map":{"a":"model-1.safetensors","a":"model-2.safetensors"}}',
      {},
      /index has the key a twice/,
    ],
    ['cut off', '{"weight_map":{"a":', {}, /index is not JSON/],
  ])('is refused %s', async (_, index, files, message, tensor) => {
    await expect(openSafetensors(sharded(index, files))).rejects.toThrow(refused(message, tensor));
  });

  test('a folder of several files without one', async () => {
    const path = mkdtempSync(join(folder, 'many-'));
    for (const name of [one, two]) writeFileSync(join(path, name), safetensors({ a: f32(1) }));
    await expect(openSafetensors(path)).rejects.toThrow(
      refused(/has 2 \.safetensors files \(model-1.*expected model\.safetensors\.index\.json/),
    );
  });
});

test('files with random bytes changed, or cut anywhere, open with tensors inside them or are refused', async () => {
  const good = safetensors(
    { a: f32(1, 2, 3), 'b.weight': { dtype: 'F16', shape: [2, 2], data: new Uint16Array(4) } },
    { format: 'pt' },
  );
  await fuzzed(good, join(folder, 'fuzzed.safetensors'), openSafetensors, 8);
});
