// The text format by itself: escaping, what is left out, comments.
import { expect, test } from 'vitest';
import { contentType, expose } from '../../src/prometheus/text.js';
import { parse } from './parse.js';

const gauge = (samples: { labels: Record<string, string>; value: number }[], help = 'Some.') => [
  { name: 'kernwatt_some_watts', help, type: 'gauge' as const, samples },
];

test('HELP, TYPE, labels and values', () => {
  const text = expose(
    gauge([
      { labels: { domain: 'gpu:0', clock: 'sm' }, value: 1.5 },
      { labels: {}, value: -3e-9 },
    ]),
  );
  expect(text).toBe(
    '# HELP kernwatt_some_watts Some.\n# TYPE kernwatt_some_watts gauge\n' +
      'kernwatt_some_watts{domain="gpu:0",clock="sm"} 1.5\nkernwatt_some_watts -3e-9\n',
  );
  expect(contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
});

test('backslashes, quotes and new lines are escaped, quotes in labels alone', () => {
  const text = expose(gauge([{ labels: { name: 'a\\b"c\nd' }, value: 1 }], 'a\\b"c\nd.'));
  expect(text).toContain('# HELP kernwatt_some_watts a\\\\b"c\\nd.\n');
  expect(text).toContain('{name="a\\\\b\\"c\\nd"} 1\n');
  expect(parse(text).families.size).toBe(1);
});

test('what is not known is absent: samples that are no number, and families without samples', () => {
  const samples = [Number.NaN, Number.POSITIVE_INFINITY, 7].map((value, i) => ({ labels: { i: String(i) }, value }));
  expect([
    ...parse(expose(gauge(samples)))
      .families.get('kernwatt_some_watts')!
      .samples.values(),
  ]).toEqual([7]);
  expect(expose(gauge(samples.slice(0, 2)))).toBe('');
  expect(expose(gauge([]))).toBe('');
});

test('notes are comments that cannot be taken for more', () => {
  const { comments, families } = parse(
    `${expose(gauge([{ labels: {}, value: 0 }]), ['HELP me\n# TYPE x counter\nx 1'])}`,
  );
  expect(comments).toEqual(['kernwatt: HELP me # TYPE x counter x 1']);
  expect([...families.keys()]).toEqual(['kernwatt_some_watts']);
});
