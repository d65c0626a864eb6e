// Student's t against printed tables and closed forms.
import { describe, expect, test } from 'vitest';
import { fisherTail, studentTail, studentUpper } from '../../src/measure/student.js';

// Any table of Student's t: the value that is exceeded with the given probability.
test.each([
  [0.025, 1, 12.7062],
  [0.025, 2, 4.30265],
  [0.025, 4, 2.77645],
  [0.025, 30, 2.04227],
  [0.05, 10, 1.81246],
  [0.01, 4, 3.74695],
  [0.005, 5, 4.03214],
  [0.001, 8, 4.50079],
  [0.025, Number.POSITIVE_INFINITY, 1.95996],
  [0.01, Number.POSITIVE_INFINITY, 2.32635],
])('%f of t with %f degrees lies above %f', (tail, degrees, value) => {
  expect(studentUpper(tail, degrees)).toBeCloseTo(value, 4);
  expect(studentTail(value, degrees)).toBeCloseTo(tail, 6);
});

// Any table of Fisher's F.
test.each([
  [0.05, 1, 1, 161.448],
  [0.05, 3, 10, 3.7083],
  [0.01, 2, 5, 13.2739],
  [0.01, 4, 32, 3.9695],
  [0.025, 10, 10, 3.7168],
])('%f of F with %f over %f degrees lies above %f', (tail, a, b, value) => {
  expect(fisherTail(value, a, b)).toBeCloseTo(tail, 5);
});

test('the square of t is F with one degree of freedom above', () => {
  for (const t of [0, 0.3, 1, 4]) expect(fisherTail(t * t, 1, 7)).toBeCloseTo(2 * studentTail(t, 7), 12);
  expect(fisherTail(Number.POSITIVE_INFINITY, 2, 3)).toBe(0);
});

describe('the tail', () => {
  test('closed forms for one and two degrees of freedom', () => {
    for (const t of [0, 0.1, 0.9, 1.1, 3, 30]) {
      expect(studentTail(t, 1)).toBeCloseTo(0.5 - Math.atan(t) / Math.PI, 12);
      expect(studentTail(t, 2)).toBeCloseTo((1 - t / Math.sqrt(2 + t * t)) / 2, 12);
    }
  });

  test('is symmetric, falls, and reaches its limits', () => {
    for (const degrees of [1, 2.5, 7, 1e4, 1e9]) {
      let last = 1;
      for (let t = -8; t <= 8; t += 0.5) {
        const tail = studentTail(t, degrees);
        expect(tail).toBeLessThan(last);
        expect(tail + studentTail(-t, degrees)).toBeCloseTo(1, 12);
        last = tail;
      }
    }
    expect(studentTail(Number.POSITIVE_INFINITY, 3)).toBe(0);
    expect(studentTail(Number.NEGATIVE_INFINITY, 3)).toBe(1);
  });
});
