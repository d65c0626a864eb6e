// From observations to a record: rates, shares, roofline, flags, memory, and nothing at all when the result was wrong. Every
// record here is held against the published schema.
import { describe, expect, test } from 'vitest';
import { memoryWindow } from '../../src/measure/assemble.js';
import { unchecked } from '../../src/measure/correctness.js';
import { unmetered } from '../../src/measure/energy.js';
import { known, missing } from '../../src/measure/quantity.js';
import type { MeasureRecord } from '../../src/measure/record.js';
import type { Subject } from '../../src/measure/subject.js';
import { clock, comparison, complaints, metered, observed, peaks, record, subject } from './record.js';

describe('arithmetic', () => {
  test('rates are work over the median of the headline clock', () => {
    const { rate, time } = record();
    expect(time!.headline).toBe('device');
    expect(rate!.flopsPerSecond.value).toBeCloseTo(5e10, 0);
    expect(rate!.bytesPerSecond.value).toBeCloseTo(5e8, 0);
    expect(record({ times: { host: clock(0.1) } }).time!.headline).toBe('host');
  });

  test('shares name their peak', () => {
    const { ofPeakFlops, ofPeakBandwidth } = record().utilisation!;
    expect(ofPeakFlops).toMatchObject({
      value: 0.5,
      basis: expect.stringContaining('empirical peak fma_f32, 100000000000 FLOP/s'),
    });
    expect(ofPeakBandwidth.value).toBeCloseTo(0.05, 6);
  });

  test('hot operands have no share of memory bandwidth', () => {
    const { utilisation } = record({}, { cache: 'hot' });
    expect(utilisation!.ofPeakBandwidth).toMatchObject({ value: null, reason: expect.stringContaining('hot') });
    expect(utilisation!.ofPeakFlops.value).toBeCloseTo(0.5, 6);
  });

  test('the roof is the higher of the two floors', () => {
    expect(record().roofline).toMatchObject({ intensity: 100, boundBy: 'compute', floorSeconds: 0.01, fraction: 0.5 });
    const memoryBound = { work: { ...subject.work, flops: 1e7 } };
    expect(record({}, memoryBound).roofline).toMatchObject({ boundBy: 'bandwidth', floorSeconds: 1e-3 });
    expect(record({}, { ...memoryBound, cache: 'hot' }).roofline).toBeNull();
    expect(record({ peaks: { ...peaks, flops: missing('FLOP/s', 'none') } }).roofline).toBeNull();
  });
});

describe('busy share and SM clock', () => {
  const cuda = { device: { kind: 'cuda', info: { totalBytes: 2 ** 30 } } as unknown as Subject['device'] };
  const of = ({ metrics, time }: MeasureRecord) => [metrics!.PCU.paper.PCU, time!.smClockHz];

  test('are those of the GPU that was metered', () => {
    const gpu = { busyShare: known(0.97, '1', 'by NVML'), smClockHz: known(1.98e9, 'Hz', 'by NVML') };
    expect(of(record({ energy: { ...metered([1, 1]), gpu } }))).toEqual([gpu.busyShare, gpu.smClockHz]);
  });

  test('are missing with the reason why there were no energy windows', () => {
    for (const quantity of of(record({ energy: unmetered('only root may read it', 'denied') }, cuda)))
      expect(quantity).toMatchObject({
        value: null,
        state: 'denied',
        reason: 'it is read in energy windows, and there were none: only root may read it',
      });
    for (const quantity of of(record({ energy: metered([1, 1]) }, cuda)))
      expect(quantity).toMatchObject({ value: null, reason: expect.stringContaining('not exactly one counter') });
    for (const quantity of of(record())) expect(quantity).toMatchObject({ reason: expect.stringContaining('the CPU') });
  });
});

describe('flags', () => {
  test('none when all is well', () => expect(record().flags).toEqual([]));

  test('each says what it is for', () => {
    expect(record({ times: { device: clock(0.02, false) } }).flags).toEqual(['not-converged']);
    expect(record({ times: { device: { ...clock(0.02), stolenSamples: 3 } } }).flags).toEqual(['stolen']);
    expect(record({}, { cache: 'warm' }).flags).toEqual(['cold-not-reached']);
    expect(record({}, { inPlace: true }).flags).toEqual(['in-place']);
    // 1e9 operations in 9 ms are 1.11 of the peak; in 9.9 ms 1.01, which is noise of the peak.
    expect(record({ times: { device: clock(0.009) } }).flags).toEqual(['above-peak']);
    expect(record({ times: { device: clock(0.0099) } }).flags).toEqual([]);
  });
});

describe('verdict', () => {
  const failed = { ...observed.correctness, state: 'failed', reason: 'y is wrong' } as const;

  test('a wrong result has no number, whatever was observed', () => {
    const wrong = record({ correctness: failed });
    expect(wrong.verdict).toBe('invalid');
    for (const part of ['time', 'memory', 'rate', 'utilisation', 'roofline', 'metrics', 'comparison'] as const)
      expect(wrong[part], part).toBeNull();
    expect(wrong.correctness.reason).toBe('y is wrong');
    expect(complaints(wrong)).toEqual([]);
  });

  test('what was not checked does not count as right', () => {
    expect(record({ correctness: unchecked('asked not to') }).verdict).toBe('unchecked');
    expect(record().verdict).toBe('ok');
  });
});

describe('memory over a window', () => {
  const reading = { byteSeconds: 1000, seconds: 10, currentBytes: 100, peakBytes: 100 };

  test('bytes held throughout, without the copies that only keep operands cold', () => {
    const after = { ...reading, byteSeconds: 1200, seconds: 12 };
    const { averageBytes, peakBytes } = memoryWindow(reading, after, 40);
    expect(averageBytes.value).toBe(60);
    expect(peakBytes.value).toBe(60);
  });

  test('a peak within the window is known, one hidden by an earlier one is not', () => {
    const risen = { byteSeconds: 1500, seconds: 12, currentBytes: 100, peakBytes: 900 };
    expect(memoryWindow(reading, risen, 0)).toMatchObject({ averageBytes: { value: 250 }, peakBytes: { value: 900 } });
    const hidden = { ...risen, peakBytes: 100 };
    expect(memoryWindow(reading, hidden, 0).peakBytes).toMatchObject({
      value: null,
      reason: expect.stringContaining('hides'),
    });
  });
});

describe('the published schema', () => {
  test('accepts every kind of record', () => {
    const kinds = [
      record(),
      record({}, { cache: 'hot', coldBytes: null, copies: 1 }),
      record(
        { correctness: unchecked('a function') },
        { kernel: null, cache: 'unknown', coldBytes: null, llcBytes: null },
      ),
      record({ peaks: { flops: missing('FLOP/s', 'none'), bandwidth: missing('B/s', 'none'), spec: [] } }),
      record({
        comparison: comparison(),
      }),
    ];
    for (const one of kinds) expect(complaints(JSON.parse(JSON.stringify(one)))).toEqual([]);
  });

  test('refuses what the library promises never to write', () => {
    const good = JSON.parse(JSON.stringify(record()));
    const bad: [string, (copy: typeof good) => void][] = [
      [
        'an unknown field',
        (r) => {
          r.extra = 1;
        },
      ],
      [
        'a missing field',
        (r) => {
          delete r.energy;
        },
      ],
      [
        'a number without provenance',
        (r) => {
          delete r.rate.flopsPerSecond.basis;
        },
      ],
      [
        'null without a reason',
        (r) => {
          r.energy.perCallJ = { value: null, unit: 'J', state: 'unavailable' };
        },
      ],
      [
        'an unknown number called ok',
        (r) => {
          r.energy.perCallJ = { value: null, unit: 'J', state: 'ok', basis: 'x' };
        },
      ],
      [
        'numbers of a wrong result',
        (r) => {
          r.verdict = 'invalid';
          r.correctness.state = 'failed';
        },
      ],
      [
        'a right result without numbers',
        (r) => {
          r.time = null;
        },
      ],
      [
        'a state of the cache nobody defined',
        (r) => {
          r.time.cache = 'lukewarm';
        },
      ],
      [
        'an interval of one number',
        (r) => {
          r.time.device.ci95Median = [1];
        },
      ],
      [
        'another schema',
        (r) => {
          r.schema = 'kernwatt.measure/2';
        },
      ],
    ];
    for (const [what, change] of bad) {
      const copy = structuredClone(good);
      change(copy);
      expect(complaints(copy), what).not.toEqual([]);
    }
  });
});
