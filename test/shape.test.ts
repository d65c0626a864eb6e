// Geometry against brute force: sizes of views are small, so every element can be listed.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { countElements, extent, isInjective, isRowMajor, overlaps, type Region, rowMajor } from '../src/shape.js';

const base = {};

/** Bytes of a region, each listed as often as it is touched. */
function bytesOf({ start, itemBytes, shape, stride }: Region): number[] {
  let offsets = [0];
  shape.forEach((size, d) => {
    offsets = offsets.flatMap((o) => Array.from({ length: size }, (_, i) => o + i * stride[d]!));
  });
  return offsets.flatMap((o) => Array.from({ length: itemBytes }, (_, i) => start + o * itemBytes + i));
}

const region = fc
  .array(fc.record({ size: fc.integer({ min: 0, max: 4 }), step: fc.integer({ min: 0, max: 20 }) }), {
    minLength: 1,
    maxLength: 3,
  })
  .chain((dims) =>
    fc
      .record({ start: fc.integer({ min: 0, max: 60 }), itemBytes: fc.constantFrom(1, 2, 4) })
      .map((at): Region => ({ base, ...at, shape: dims.map((d) => d.size), stride: dims.map((d) => d.step) })),
  );

test('overlaps never misses a byte that two regions share', () => {
  fc.assert(
    fc.property(region, region, (a, b) => {
      const inA = new Set(bytesOf(a));
      if (bytesOf(b).some((byte) => inA.has(byte))) expect(overlaps(a, b)).toBe(true);
    }),
    { numRuns: 3000 },
  );
});

describe('overlaps is exact for', () => {
  const whole = { base, itemBytes: 4, start: 0 };
  const columns = (from: number, count: number, rows = 5, width = 12): Region => ({
    ...whole,
    start: from * 4,
    shape: [rows, count],
    stride: [width, 1],
  });

  test('columns of one matrix', () => {
    for (let from = 0; from < 12; ++from)
      for (let count = 1; from + count <= 12; ++count)
        expect(overlaps(columns(3, 4), columns(from, count))).toBe(from < 7 && from + count > 3);
  });

  test('heads cut out of a fused projection', () => {
    const part = (which: number): Region => ({
      ...whole,
      start: which * 8 * 4,
      shape: [2, 3, 2, 4],
      stride: [72, 24, 4, 1],
    });
    expect(overlaps(part(0), part(1))).toBe(false);
    expect(overlaps(part(1), part(2))).toBe(false);
    expect(overlaps(part(1), part(1))).toBe(true);
  });

  test('odd and even rows, different memory, and nothing at all', () => {
    const rows = (first: number): Region => ({ ...whole, start: first * 40, shape: [4, 10], stride: [20, 1] });
    expect(overlaps(rows(0), rows(1))).toBe(false);
    expect(overlaps(rows(0), { ...rows(0), base: {} })).toBe(false);
    expect(overlaps(rows(0), { ...rows(0), shape: [0, 10] })).toBe(false);
  });
});

test('isInjective is false whenever an element has two indices', () => {
  fc.assert(
    fc.property(region, (r) => {
      const elements = bytesOf({ ...r, itemBytes: 1 });
      if (new Set(elements).size < elements.length) expect(isInjective(r.shape, r.stride)).toBe(false);
    }),
    { numRuns: 2000 },
  );
  expect(isInjective([3, 4], [4, 1])).toBe(true);
  expect(isInjective([4, 3], [1, 4])).toBe(true);
  expect(isInjective([3, 4], [0, 1])).toBe(false);
  expect(isInjective([3, 4], [3, 1])).toBe(false);
  expect(isInjective([1, 4], [0, 1])).toBe(true);
});

test('extent counts to one past the last element', () => {
  expect(extent([2, 3], [10, 1])).toBe(13);
  expect(extent([2, 0], [10, 1])).toBe(0);
  expect(extent([5], [0])).toBe(1);
});

test('row-major strides, with sizes of 1 and 0 forgiven', () => {
  expect(rowMajor([2, 3, 4])).toEqual([12, 4, 1]);
  expect(isRowMajor([2, 3], [3, 1])).toBe(true);
  expect(isRowMajor([2, 3], [4, 1])).toBe(false);
  expect(isRowMajor([1, 3], [99, 1])).toBe(true);
  expect(isRowMajor([0, 3], [99, 7])).toBe(true);
  expect(isRowMajor([3, 2], [1, 3])).toBe(false);
});

test('shapes that cannot be are refused with the reason', () => {
  expect(countElements('empty', [2, 0, 3], 'f32')).toBe(0);
  expect(countElements('empty', [2 ** 26, 2 ** 24], 'u8')).toBe(2 ** 50);
  const refused = [
    [[], 'empty: shape is [], expected 1 to 8 dimensions'],
    [[1, 1, 1, 1, 1, 1, 1, 1, 1], 'empty: shape is [1, 1, 1, 1, 1, 1, 1, 1, 1], expected 1 to 8 dimensions'],
    [[2, -1], 'empty: shape is [2, -1], expected whole sizes of 0 or more'],
    [[2.5], 'empty: shape is [2.5], expected whole sizes of 0 or more'],
    [[2 ** 30, 2 ** 30], 'empty: shape is [1073741824, 1073741824] of f32, expected at most 2^53 - 1 bytes'],
    [[2 ** 51], 'empty: shape is [2251799813685248] of f32, expected at most 2^53 - 1 bytes'],
  ] as const;
  for (const [shape, message] of refused)
    expect(() => countElements('empty', shape, 'f32')).toThrow(
      expect.objectContaining({ code: 'ERR_KERNWATT_SHAPE', message }),
    );
});
