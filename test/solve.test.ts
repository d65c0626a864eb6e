// Declarations that no operator has yet: whole numbers, parameters that must be given, several outputs, dtypes of their own.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, openDevice, type Tensor } from '../src/index.js';
import { nearest } from '../src/nearest.js';
import { defineOp } from '../src/op.js';
import { solve } from '../src/solve.js';
import { f32, input, integer, optionalInput, output } from '../src/spec.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu', { threads: 1 });
});
afterAll(() => device.close());

/** Two outputs over a shared batch; only declared, never run. */
const split = defineOp({
  name: 'split',
  summary: 'Splits the columns of x',
  source: 'this test',
  tensors: {
    x: input(['batch?', 'rows', 'columns'], { dtype: ['f32', 'bf16'] }),
    ids: optionalInput(['rows'], { dtype: ['i32'] }),
    left: output(['batch?', 'rows', 'first'], { dtype: ['f32', 'bf16'], from: 'x' }),
    right: output(['batch?', 'rows', 'rest'], { dtype: ['f32', 'bf16'], from: 'x' }),
  },
  params: {
    at: integer([0, 64]),
    scale: f32((d) => 1 / Math.sqrt(d.columns!), '1 / sqrt(columns)'),
  },
  derive: { first: (_, p) => p.at, rest: (d, p) => d.columns - p.at },
  rules: (d, p) => [p.at > d.columns && ['SHAPE', `at is ${p.at}, expected at most columns ${d.columns}`]],
  work: (d) => ({ flops: d.batch * d.rows * d.columns }),
  flops: 'one multiplication an element',
  cases: () => [],
  models: [],
});
const run = (args: Record<string, unknown>, dtype?: 'bf16') => solve(split.compiled, args, dtype);
const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });

describe('solve', () => {
  test('derives sizes, computes defaults, and lists the outputs to allocate', () => {
    const solved = run({ x: device.zeros([5, 4, 16]), at: 6 }, 'bf16');
    expect(solved.dims).toEqual({ batch: 5, rows: 4, columns: 16, first: 6, rest: 10 });
    expect(solved.params).toEqual({ at: 6, scale: 0.25 });
    expect(solved.missing).toEqual([
      { name: 'left', shape: [5, 4, 6], dtype: 'bf16' },
      { name: 'right', shape: [5, 4, 10], dtype: 'bf16' },
    ]);
    expect(run({ x: device.zeros([4, 16]), at: 16 }).missing.map((m) => m.shape)).toEqual([
      [4, 16],
      [4, 0],
    ]);
    expect(run({ x: device.zeros([1, 4, 16]), at: 16 }).missing[0]!.shape).toEqual([1, 4, 16]);
  });

  test('wants whole numbers within their bounds, and parameters without default', () => {
    const x = device.zeros([4, 16]);
    for (const at of [1.5, -1, 65, '2', Number.NaN])
      expect(() => run({ x, at })).toThrow(
        refused(
          'ARGUMENT',
          `split: at is ${typeof at === 'string' ? '"2"' : at}, expected a whole number from 0 to 64`,
        ),
      );
    expect(() => run({ x })).toThrow(refused('ARGUMENT', 'split: at is missing, expected a whole number from 0 to 64'));
    expect(() => run({ x, at: 17 })).toThrow(refused('SHAPE', 'split: at is 17, expected at most columns 16'));
  });

  test('optional inputs have dtypes of their own', () => {
    const x = device.zeros([4, 16]);
    expect(() => run({ x, at: 1, ids: device.zeros([4]) })).toThrow(
      refused('DTYPE', 'split: ids is f32, expected i32'),
    );
    expect(() => run({ x, at: 1, ids: device.zeros([5], 'i32') })).toThrow(
      refused('SHAPE', 'split: ids has rows 5, but x has 4'),
    );
    expect(run({ x, at: 1, ids: device.zeros([4], 'i32') }).tensors.ids?.dtype).toBe('i32');
  });

  test('outputs may lie side by side in one tensor, but not over each other', () => {
    const x = device.zeros([4, 16]);
    const both = device.zeros([4, 20]);
    const columns = (from: number, to: number): Tensor => both.slice([null, [from, to]]);
    expect(run({ x, at: 6, left: columns(0, 6), right: columns(6, 16) }).missing).toEqual([]);
    expect(() => run({ x, at: 6, left: columns(0, 6), right: columns(5, 15) })).toThrow(
      refused('ARGUMENT', 'split: left overlaps right in memory, expected separate tensors'),
    );
    expect(() => run({ x, at: 6, right: columns(4, 14), left: columns(8, 14) })).toThrow(
      refused('ARGUMENT', 'split: left overlaps right in memory, expected separate tensors'),
    );
  });
});

test('nearest finds slips of the finger and leaves strangers alone', () => {
  const names = ['x', 'w', 'bias', 'residual', 'activation', 'transX'];
  expect(nearest('baias', names)).toBe('bias');
  expect(nearest('activaton', names)).toBe('activation');
  expect(nearest('transx', names)).toBe('transX');
  expect(nearest('residuals', names)).toBe('residual');
  expect(nearest('temperature', names)).toBeUndefined();
  expect(nearest('q', names)).toBeUndefined();
});
