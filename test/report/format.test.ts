// Numbers as people read them.
import { expect, test } from 'vitest';
import { known, missing } from '../../src/measure/quantity.js';
import { bytes, digits, duration, percent, plusMinus, quantity, si } from '../../src/report/format.js';
import { facts, table } from '../../src/report/table.js';

test('SI prefixes with three significant digits, rounded before the prefix is chosen', () => {
  expect(si(1.2345e-5, 's')).toBe('12.3 µs');
  expect(si(9.996e-7, 's')).toBe('1.00 µs');
  expect(si(4.5e11, 'FLOP/s')).toBe('450 GFLOP/s');
  expect(si(0, 's')).toBe('0 s');
  expect(si(3e-13, 's')).toBe('0.300 ps');
  expect(si(Number.NaN, 's')).toBe('NaN s');
});

test('digits, shares, bytes and durations', () => {
  expect([0, 0.012345, 1.2345, 123.45, 12345, 1.5e7, 2e-6].map(digits)).toEqual([
    '0',
    '0.0123',
    '1.23',
    '123',
    '12345',
    '1.50e+7',
    '2.00e-6',
  ]);
  expect(percent(0.1234)).toBe('12.3 %');
  expect([0, 512, 2048, 480 * 2 ** 20, 1.5 * 2 ** 40].map(bytes)).toEqual([
    '0 B',
    '512 B',
    '2.00 KiB',
    '480 MiB',
    '1.50 TiB',
  ]);
  expect([0.2, 42, 200].map(duration)).toEqual(['1 s', '42 s', '3 min']);
});

test('intervals are relative to the median, and absent where there is none', () => {
  expect(plusMinus([0.99, 1.01], 1)).toBe('±1.0 %');
  expect(plusMinus(null, 1)).toBe('');
});

test('a missing quantity is n/a, never 0', () => {
  expect(quantity(missing('W', 'no meter'))).toBe('n/a');
  expect(quantity(known(0.5, '1', 'x'))).toBe('50.0 %');
  expect(quantity(known(2048, 'B', 'x'))).toBe('2.00 KiB');
  expect(quantity(known(1e-3, 's', 'x'))).toBe('1.00 ms');
  expect(quantity(known(123456, 'tokens/s', 'x'))).toBe('123 ktokens/s');
});

test('tables align and carry no trailing spaces', () => {
  const text = table(
    [{ head: 'name' }, { head: 'value', align: 'right' }],
    [
      ['a', '1'],
      ['long', '1000'],
    ],
  );
  expect(text).toBe('name  value\n-----------\na         1\nlong   1000\n');
  expect(
    facts([
      ['a', '1'],
      ['bcd', '2'],
    ]),
  ).toBe('a    1\nbcd  2\n');
});
