// GGUF: what is read back is what was written, and every lie of a header is an error that names it.
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openGguf } from '../../src/checkpoint/index.js';
import { type Block, gguf, scratch, type Writer } from './files.js';
import { fuzzed } from './fuzz.js';

const folder = scratch();
let count = 0;
const write = (bytes: Uint8Array) => {
  const path = join(folder, `file-${++count}.gguf`);
  writeFileSync(path, bytes);
  return path;
};
const block = (type: number, shape: number[], bytes: number, offset?: number): Block => ({
  type,
  shape,
  data: Uint8Array.from({ length: bytes }, (_, i) => i + type),
  ...(offset !== undefined && { offset }),
});
const refused = (message: string | RegExp, tensor: string | null = null, code = 'FILE') =>
  expect.objectContaining({ code: `ERR_KERNWATT_${code}`, tensor, message: expect.stringMatching(message) });

test.each([2, 3])('version %i: tensors in order, dimensions reversed, keys, lists passed over', async (version) => {
  const tensors = {
    'blk.0.attn_q.weight': block(2, [3, 64], 3 * 2 * 18),
    'output_norm.weight': block(0, [5], 20),
    'output.weight': block(14, [2, 256], 2 * 210),
    'token_embd.weight': block(30, [2, 4], 16),
  };
  const keys = [
    (w: Writer) => w.text('general.architecture').u32(8).text('llama'),
    (w: Writer) => w.text('llama.block_count').u32(4).u32(22),
    (w: Writer) =>
      w
        .text('big')
        .u32(10)
        .u64(2n ** 60n),
    (w: Writer) =>
      w
        .text('small')
        .u32(11)
        .u64(2n ** 64n - 5n),
    (w: Writer) =>
      w
        .text('eps')
        .u32(6)
        .raw(new Uint8Array(Float32Array.of(0.5).buffer)),
    (w: Writer) => w.text('yes').u32(7).raw(Uint8Array.of(1)),
    (w: Writer) => w.text('tokens').u32(9).u32(8).u64(2).text('a').text('bc'),
    (w: Writer) => w.text('scores').u32(9).u32(6).u64(3).raw(new Uint8Array(12)),
  ];
  await using checkpoint = await openGguf(write(gguf(tensors, { version, keys, alignment: 64 })));
  expect(Object.fromEntries(checkpoint.metadata)).toEqual({
    'general.architecture': 'llama',
    'llama.block_count': 22,
    big: 2n ** 60n,
    small: -5,
    eps: 0.5,
    yes: true,
    'general.alignment': 64,
  });
  expect([...checkpoint.tensors.values()].map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
    ['blk.0.attn_q.weight', 'Q4_0', [3, 64]],
    ['output_norm.weight', 'F32', [5]],
    ['output.weight', 'Q6_K', [2, 256]],
    ['token_embd.weight', 'BF16', [2, 4]],
  ]);
  for (const name of ['blk.0.attn_q.weight', 'output_norm.weight', 'token_embd.weight'] as const)
    expect(await checkpoint.read(name)).toEqual(tensors[name].data);
  expect(await checkpoint.quantization()).toBeNull();
});

test('a header of megabytes, as vocabularies make it', async () => {
  const list = (w: Writer) => {
    const one = Buffer.alloc(8 + 50);
    one.writeBigUInt64LE(50n);
    w.text('tokens')
      .u32(9)
      .u32(8)
      .u64(60_000)
      .raw(Buffer.concat(Array.from({ length: 60_000 }, () => one)));
  };
  await using checkpoint = await openGguf(write(gguf({ w: block(0, [2], 8) }, { keys: [list] })));
  expect([...(await checkpoint.read('w'))]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});

test('a file that became shorter after it was opened', async () => {
  const bytes = gguf({ w: block(0, [16], 64) });
  const path = write(bytes);
  await using checkpoint = await openGguf(path);
  truncateSync(path, bytes.length - 1);
  await expect(checkpoint.read('w')).rejects.toThrow(refused(/w ends at byte \d+ of the file, expected \d+/, 'w'));
});

describe('a file is refused that', () => {
  const good = () => gguf({ w: block(0, [16], 64) });
  const changed = (at: number, bytes: readonly number[]) => {
    const file = good();
    file.set(bytes, at);
    return file;
  };
  const huge = [255, 255, 255, 255, 255, 255, 255, 255];
  const keyed = (key: (w: Writer) => void) => gguf({ w: block(0, [16], 64) }, { keys: [key] });
  const list = (type: number, length: number | bigint) => (w: Writer) => {
    w.text('k').u32(9).u32(type).u64(length);
  };
  test.each<[string, Uint8Array, RegExp, string?]>([
    ['is empty', new Uint8Array(), /header has the magic number of 4 bytes at byte 0, expected at most 0/],
    ['has another magic number', changed(0, [0x50]), /begins with 46554750 \(little-endian\), expected 46554747/],
    ['claims 2^64 - 1 tensors', changed(8, huge), /header has 18446744073709551615 for the number of tensors/],
    [
      'claims 2^32 tensors',
      gguf({}).fill(1, 12, 13),
      /header has the rank of {2}of 4 bytes at byte 32, expected at most 0/,
    ],
    ['claims 2^64 - 1 keys', changed(16, huge), /header has 18446744073709551615 for the number of keys/],
    [
      'has a name longer than the file',
      changed(24, [0, 0, 1]),
      /header has the name of a tensor of 65536 bytes at byte 32/,
    ],
    ['has a name of no text', changed(32, [0xff]), /header has the name of a tensor at byte 32 that is not UTF-8/],
    ['has 5 dimensions', changed(33, [5]), /w has 5 dimensions, expected at most 4/, 'w'],
    ['has a dimension of 2^64 - 1', changed(37, huge), /for a dimension of w, expected at most 2\^53/],
    [
      'has a dimension beyond the file',
      changed(37, [17]),
      /w is F32 \[17\] up to byte \d+, expected the file's \d+/,
      'w',
    ],
    ['has an offset beyond the file', changed(49, [0, 0, 1]), /w begins at byte 65536 of the data, expected 0/, 'w'],
    [
      'has an offset off the alignment',
      changed(49, [1]),
      /w begins at byte 1 of the data, expected a multiple of 32/,
      'w',
    ],
    ['has an unknown type of key', keyed((w) => w.text('k').u32(13)), /header has type 13 for k, expected 0 to 12/],
    [
      'has a list longer than the file',
      keyed(list(4, 2n ** 52n)),
      /header has the values of k of 18014398509481984 bytes/,
    ],
    ['has a list of 2^52 strings', keyed(list(8, 2n ** 52n)), /header has (a string|the length of a string) of/],
    ['has a list of lists', keyed(list(9, 1)), /header has a list of type 9 for k, expected numbers or strings/],
    ['has an alignment of 3', gguf({}, { alignment: 3 }), /header has general\.alignment 3, expected a power of two/],
    [
      'has a key twice',
      gguf({}, { keys: [1, 2].map((v) => (w: Writer) => w.text('k').u32(4).u32(v)) }),
      /header has the key k twice/,
    ],
    [
      'has rows of half a block',
      gguf({ w: block(2, [2, 48], 54) }),
      /w has rows of 48, expected a multiple of 32 for Q4_0/,
      'w',
    ],
    [
      'has overlapping tensors',
      gguf({ a: block(0, [16], 64), b: block(0, [8], 32, 32) }),
      /b begins at byte 32 of the data, expected 64/,
      'b',
    ],
    [
      'has a hole',
      gguf({ a: block(0, [8], 32), b: block(0, [8], 32, 64) }),
      /b begins at byte 64 of the data, expected 32/,
      'b',
    ],
    [
      'is cut off',
      good().subarray(0, good().length - 1),
      /w is F32 \[16\] up to byte \d+, expected the file's \d+ at most/,
      'w',
    ],
  ])('%s', async (_, bytes, message, tensor) => {
    await expect(openGguf(write(bytes))).rejects.toThrow(refused(message, tensor));
  });

  test('is of another version or byte order', async () => {
    for (const version of [1, 4, 0x03000000])
      await expect(openGguf(write(gguf({}, { version })))).rejects.toThrow(
        refused(`is GGUF version ${version}, expected 2 or 3 in little-endian order`, null, 'UNSUPPORTED'),
      );
  });

  test('has a tensor twice', async () => {
    const bytes = gguf({ aa: block(0, [8], 32), ab: block(0, [8], 32) });
    bytes.set(Buffer.from('aa'), bytes.indexOf('ab'));
    await expect(openGguf(write(bytes))).rejects.toThrow(refused('aa is in the header twice, expected it once', 'aa'));
  });

  test('has a header of more than 100 MB', async () => {
    const path = write(keyed(list(0, 150_000_000)));
    truncateSync(path, 400e6);
    await expect(openGguf(path)).rejects.toThrow(refused('header is longer than 100000000 bytes'));
  });
});

test('files with random bytes changed, or cut anywhere, open with tensors inside them or are refused', async () => {
  const keys = [
    (w: Writer) => w.text('arch').u32(8).text('x'),
    (w: Writer) => w.text('l').u32(9).u32(8).u64(1).text('y'),
  ];
  const good = gguf({ a: block(2, [2, 32], 36), b: block(14, [256], 210), c: block(1, [3], 6) }, { keys });
  await fuzzed(good, join(folder, 'fuzzed.gguf'), openGguf, 9);
});
