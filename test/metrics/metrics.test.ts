// The six metrics: the paper's arithmetic reproduced from its own printed numbers, the honest form beside it, and reasons where
// nothing is known.
import { describe, expect, test } from 'vitest';
import { derived, known, missing } from '../../src/measure/quantity.js';
import { summarize } from '../../src/measure/stats.js';
import { aec } from '../../src/metrics/aec.js';
import { al } from '../../src/metrics/al.js';
import { amu } from '../../src/metrics/amu.js';
import { at } from '../../src/metrics/at.js';
import { fidelity as fidelityOf } from '../../src/metrics/fidelity.js';
import { mcr } from '../../src/metrics/mcr.js';
import { pcu } from '../../src/metrics/pcu.js';

const nothing = (unit: string) => missing(unit, 'not measured');

describe('quantities', () => {
  test('what is not a finite number is missing, with its origin in the reason', () => {
    expect(known(Number.NaN, 's', 'a clock')).toMatchObject({
      value: null,
      state: 'unavailable',
      reason: expect.stringContaining('a clock'),
    });
    expect(known(1 / 0, 's', 'a clock').value).toBeNull();
  });

  test('an interval follows its value through a decreasing function, low end first', () => {
    expect(derived(known(2, 's', 't', [1, 4]), '1/s', 'rate', (s) => 8 / s)).toMatchObject({ value: 4, ci95: [2, 8] });
  });

  test('a missing value keeps its reason in another unit', () => {
    expect(derived(nothing('W'), 'J', 'x', (v) => v)).toEqual({
      value: null,
      unit: 'J',
      state: 'unavailable',
      reason: 'not measured',
    });
  });
});

test('AMU: GB of 2^30 bytes as the paper prints, and the share the name promises', () => {
  const { paper, honest } = amu(
    known(3 * 2 ** 30, 'B', 'allocator'),
    known(4 * 2 ** 30, 'B', 'allocator'),
    12 * 2 ** 30,
  );
  expect(paper.AMU).toMatchObject({ value: 3, unit: 'GB' });
  expect(honest.shareOfCapacity.value).toBe(0.25);
  expect(honest.peakBytes.value).toBe(4 * 2 ** 30);
  expect(amu(nothing('B'), nothing('B'), 1).paper.AMU).toMatchObject({ value: null, reason: 'not measured' });
  expect(amu(known(1, 'B', 'a'), known(1, 'B', 'a'), null).honest.shareOfCapacity.value).toBeNull();
});

test('PCU: the busy share is not a share of a peak; both are there', () => {
  const metric = pcu(known(0.98, '1', 'NVML'), known(0.4, '1', 'of fma_f32'), nothing('1'));
  expect(metric.paper.PCU.value).toBe(0.98);
  expect(metric.honest.ofPeakFlops.value).toBe(0.4);
});

test('AL: mean of the host clock as in the paper, medians of each clock beside it', () => {
  const host = summarize([1, 1, 1, 1, 1, 1, 1, 1, 1, 11]);
  const { paper, honest } = al({ device: summarize([1, 1, 1]), stream: null, host });
  expect(paper.AL.value).toBe(2);
  expect(honest.hostSeconds.value).toBe(1);
  expect(honest.deviceSeconds.value).toBe(1);
  expect(honest.streamSeconds).toMatchObject({ value: null, reason: expect.stringContaining('stream clock') });
});

test('AT: tokens per parameter and second, generated tokens, and plain tokens', () => {
  const meanSeconds = known(0.5, 's', 'mean');
  const medianSeconds = known(0.4, 's', 'median');
  const { paper, honest } = at({ tokens: 16, params: 4, meanSeconds, medianSeconds });
  expect(paper.TT).toMatchObject({ value: 8, unit: 'tokens/param/s' });
  expect(paper.IT).toMatchObject({ value: 32, unit: 'tokens/s' });
  expect(honest.tokensPerSecond.value).toBe(40);
  expect(paper.ST.value).toBeNull();
  const without = at({ tokens: null, params: null, meanSeconds, medianSeconds });
  for (const q of [without.paper.TT, without.paper.IT, without.honest.tokensPerSecond]) expect(q.value).toBeNull();
});

test('AEC: watts under the name of energy, joules beside them', () => {
  const { paper, honest } = aec(known(300, 'W', 'meter'), known(6, 'J', 'meter'), 3);
  expect(paper.AEC).toMatchObject({ value: 300, unit: 'W' });
  expect(honest.joulesPerToken).toMatchObject({ value: 2, unit: 'J' });
  expect(aec(nothing('W'), nothing('J'), 3).honest.joulesPerToken).toMatchObject({
    value: null,
    reason: 'not measured',
  });
  expect(aec(nothing('W'), known(6, 'J', 'm'), null).honest.joulesPerToken.value).toBeNull();
});

describe('fidelity', () => {
  test('of vectors whose distance and angle are known', () => {
    expect(fidelityOf([3, 4], [3, 4])).toEqual({ relativeError: 0, snr: Infinity, cosine: 1 });
    expect(fidelityOf([3, 4], [6, 8])).toEqual({ relativeError: 1, snr: -0, cosine: 1 });
    const { relativeError, snr, cosine } = fidelityOf([10, 0], [10, 1]);
    expect([relativeError, snr]).toEqual([0.1, 20]);
    expect(cosine).toBeCloseTo(10 / Math.sqrt(101), 12);
    expect(fidelityOf([1], [0]).cosine).toBeNaN();
  });

  test('refuses lists of different lengths and a reference of zeros', () => {
    expect(() => fidelityOf([1, 2], [1])).toThrow('fidelity: result has 1 elements, expected 2 as reference');
    expect(() => fidelityOf([0, 0], [1, 2])).toThrow('fidelity: reference is 0 everywhere, expected another value');
  });
});

describe('MCR', () => {
  const fidelity = (value: number) => ({ value, kind: 'score ratio' });

  test("the paper's own rows: DeepSeek-14B 3.6965 and Qwen-32B 3.69 are four times the score ratio", () => {
    const of = (score: number) =>
      mcr({
        baseline: 'bf16',
        nominalBits: { baseline: 16, stored: 4 },
        bytes: { baseline: 16, stored: 4.25 },
        fidelity: fidelity(score),
      });
    expect(of(0.4361 / 0.4719).paper.MCR.value).toBeCloseTo(3.6965, 3);
    expect(of(0.5095 / 0.5523).paper.MCR.value).toBeCloseTo(3.69, 2);
    // With an fp16 scale and zero for every 128 weights the true ratio is below the nominal 4.
    expect(of(1).honest.MCR.value).toBeCloseTo(3.7647, 4);
  });

  test('weights as they came have no ratio', () => {
    const { paper, honest } = mcr('w is stored as it came');
    expect(paper.MCR).toMatchObject({ value: null, reason: expect.stringContaining('w is stored') });
    expect(honest.MCR.value).toBeNull();
  });
});
