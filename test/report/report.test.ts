// Reports from made-up records: groups, sets, missing energy, bad lines; Markdown, CSV and JSON of the same content.
import { describe, expect, test } from 'vitest';
import { known } from '../../src/measure/quantity.js';
import type { MeasureRecord } from '../../src/measure/record.js';
import { parseRecords } from '../../src/records/read.js';
import { frontOf, labels, scoring, shown } from '../../src/report/analysis.js';
import { report } from '../../src/report/model.js';
import { equalWeights, paretoAxes, quantities } from '../../src/report/quantities.js';
import { csv, json, markdown } from '../../src/report/text.js';
import { clock, comparison, metered as windows, observed, record, subject } from '../measure/record.js';

const interval = (seconds: number, half: number) => ({
  device: { ...clock(seconds), ci95Median: [seconds - half, seconds + half] as [number, number] },
});
const named = (name: string, one: MeasureRecord): MeasureRecord => ({ ...one, case: { ...one.case, name } });
const fast = named(
  'fast',
  record({ times: interval(0.01, 0.001), correctness: { ...observed.correctness, cosine: 1 } }),
);
const slow = named(
  'slow',
  record({ times: interval(0.02, 0.001), correctness: { ...observed.correctness, cosine: 1 } }),
);

const of = (records: readonly MeasureRecord[], together = false) =>
  report(
    ['f.jsonl'],
    records.map((one, i) => ({ record: one, file: 'f.jsonl', line: i + 1 })),
    [],
    { together },
  );

/** The same record with energy, as meters will write it. */
const metered = (one: MeasureRecord, joules: number): MeasureRecord => {
  const { metrics } = one;
  const perToken = known(joules, 'J', 'a test', [joules * 0.99, joules * 1.01]);
  const AEC = {
    paper: { AEC: known(5, 'W', 'a test') },
    honest: { joulesPerCall: perToken, joulesPerToken: perToken },
  };
  return { ...one, metrics: { ...metrics!, AEC } };
};

describe('groups', () => {
  test('records of different machines are never in one set', () => {
    const elsewhere = { ...slow, env: { ...slow.env, cpu: { ...slow.env.cpu, model: 'another processor' } } };
    const { groups } = of([fast, elsewhere, slow], true);
    expect(groups.map(({ rows }) => rows.map(({ name }) => name))).toEqual([['fast', 'slow'], ['slow']]);
    expect(groups.map(({ sets }) => sets.map(({ rows }) => rows))).toEqual([[[0, 1]], []]);
    expect(markdown(of([fast, elsewhere]), equalWeights)).toContain('Records of 2 devices, reported apart');
  });

  test('alternatives are equal work, or what compare() was given; other work stands alone', () => {
    const otherShape = record({}, { case: { ...subject.case, shape: { m: 11, rowsW: 20, k: 30 } } });
    expect(of([fast, slow, otherShape]).groups[0]!.sets).toEqual([
      { label: expect.stringMatching(/^gemm .*m=10.*cold/), rows: [0, 1] },
    ]);
    const beside = comparison({ baseline: 'fast', baselineId: fast.id, ratio: 2, ci95: null, ratioOfMedians: 2 });
    const compared = { ...otherShape, runId: 'r', comparison: beside };
    const { sets } = of([{ ...fast, runId: 'r' }, compared, { ...slow, runId: 's' }]).groups[0]!;
    expect(sets.map(({ label, rows }) => [label.split(',')[0], rows])).toEqual([
      ['compared with fast', [0, 1]],
      [expect.stringMatching(/^gemm/), [0, 2]],
    ]);
  });

  test('a wrong result is listed and ranked nowhere', () => {
    const correctness = { ...observed.correctness, state: 'failed', reason: 'y[0] is 1, expected 2' } as const;
    const made = of([fast, slow, named('wrong', record({ correctness }))]);
    expect(made.groups[0]!.sets.map(({ rows }) => rows)).toEqual([[0, 1]]);
    expect(made.groups[0]!.caveats[0]).toBe('INVALID wrong: y[0] is 1, expected 2');
    const text = markdown(made, equalWeights);
    expect(text).toMatch(/^\| wrong \|.*\| INVALID \|/m);
    expect(made.groups[0]!.rows[2]!.cells.every((cell) => typeof cell === 'string' || cell.value > 0)).toBe(true);
  });
});

describe('fronts and scores', () => {
  const { rows } = of([fast, slow]).groups[0]!;

  test('missing energy is left out with its reason; equal memory and error do not protect the slower', () => {
    const found = frontOf(rows, paretoAxes);
    expect(found.axes).toEqual(['latency_s', 'average_b', 'deviation']);
    expect(found.leftOut).toEqual([{ label: 'energy per token', reason: expect.stringContaining('no meter') }]);
    expect(found.beatenBy).toEqual([null, 0]);
    expect(found.undecided).toBe(0);
    // Too few samples for an interval: it stays on the front, and that is said.
    const vague = named('vague', record({ times: { device: { ...clock(0.05), ci95Median: null } } }));
    const three = of([fast, slow, vague]);
    const unsure = frontOf(three.groups[0]!.rows, paretoAxes);
    expect([unsure.beatenBy, unsure.undecided]).toEqual([[null, 0, null], 1]);
    expect(markdown(three, equalWeights)).toContain('1 of them cannot be judged');
  });

  test('joules from a meter: columns, what they cover, why they are doubted, and a front over energy', () => {
    const [thrifty, wasteful] = [windows([1, 1.01, 0.99]), windows([2, 2.02, 1.98], { powerShare: 1.3 })];
    const built = of([named('thrifty', record({ energy: thrifty })), named('wasteful', record({ energy: wasteful }))]);
    const { caveats, rows } = built.groups[0]!;
    expect(caveats).toContainEqual(
      expect.stringMatching(/^energy of gpu:0 \(nvml\) covers a made-up board; not the processor and its memory; /),
    );
    expect(caveats).toContain('energy is disputed: the power readings add up to 30 % more than the energy counter');
    expect(caveats).toContainEqual(expect.stringMatching(/^disputed, 1 of 2 records: /));
    expect(rows[1]!.flags).toEqual(['disputed']);
    const text = markdown(built, equalWeights);
    expect(text).toMatch(/^\| thrifty \|.*\| 100 mJ ±[\d.]+ % \| 1.00 J ±[\d.]+ % \|/m);
    const found = frontOf(rows, paretoAxes);
    expect(found.axes).toContain('joules_per_token');
    expect(found.beatenBy).toEqual([null, 0]);
    // 1 J over 1e9 operations, and over 1e7 bytes.
    const [flop, byte] = ['joules_per_flop', 'joules_per_byte'].map((key) => shown(rows[0]!, key));
    expect(flop).toMatch(/^1.00 nJ\/FLOP ±/);
    expect(byte).toMatch(/^100 nJ\/B ±/);
  });

  test('settings of the GPU stand in the environment, unknown ones as such', () => {
    const powerLimitW = { enforced: 500, default: 700, min: 200, max: 700 };
    const unknown = { vbios: null, nvml: null, maxClockHz: { sm: null, memory: null }, otherProcesses: null };
    const gpu = { pci: null, uuidHash: null, driver: null, ecc: true, mig: false, persistence: null };
    const built = of([record({ gpu: { ...gpu, ...unknown, powerLimitW } })]);
    expect(built.groups[0]!.environment).toContainEqual([
      'GPU settings',
      'power limit 500 W (default 700 W), ECC on, MIG off, persistence unknown, other processes unknown',
    ]);
  });

  test('energy counts as soon as records have it', () => {
    const [a, b] = of([metered(fast, 2), metered(slow, 1)]).groups[0]!.rows;
    expect(frontOf([a!, b!], paretoAxes).beatenBy).toEqual([null, null]);
    expect(shown(a!, 'joules_per_token')).toBe('2.00 J ±1.0 %');
    expect(scoring([a!, b!], 'honest', equalWeights).metrics).toContain('AEC');
    // One of two has it: no front can be decided between them on that axis, and no score can use it.
    const mixed = [a!, rows[1]!];
    expect(frontOf(mixed, paretoAxes).beatenBy).toEqual([null, null]);
    expect(scoring(mixed, 'honest', equalWeights).leftOut.map(({ label }) => label)).toContain('AEC');
  });

  test('weights decide between alternatives', () => {
    const small = { ...slow, memory: slow.memory, metrics: { ...slow.metrics!, AMU: record().metrics!.AMU } };
    const bytes = known(1e6, 'B', 'a test');
    small.metrics.AMU = { ...small.metrics.AMU, honest: { ...small.metrics.AMU.honest, averageBytes: bytes } };
    const pair = of([fast, small]).groups[0]!.rows;
    const best = (weights: Partial<typeof equalWeights>) => {
      const { members } = scoring(pair, 'honest', { ...equalWeights, ...weights });
      return members[0]!.score! > members[1]!.score! ? 'fast' : 'small';
    };
    expect(best({ AMU: 0 })).toBe('fast');
    expect(best({ AMU: 10 })).toBe('small');
  });

  test('labels tell rows apart by as little as it takes', () => {
    const row = rows[0]!;
    expect(labels([row, { ...row, name: 'other' }])).toEqual(['fast', 'other']);
    expect(labels([row, { ...row, cache: 'hot' }])).toEqual(['fast, cold', 'fast, hot']);
    expect(labels([row, { ...row, line: 7 }])).toEqual(['fast, line 1', 'fast, line 7']);
  });
});

describe('text', () => {
  test('Markdown escapes what a name may hold and says each caveat once', () => {
    const text = markdown(of([named('a|b <img> *c*', fast), slow]), equalWeights);
    expect(text).toContain('a\\|b &lt;img\\> \\*c\\*');
    expect(text.match(/^- n\/a .*a test has no meter/gm)).toHaveLength(1);
    expect(text).toMatch(/^\| slow \| 20\.0 ms ±5\.0 % .*\| no: a/m);
  });

  test('CSV has one line for each record, full precision, quotes and no formulas', () => {
    const lines = csv(of([named('=1+1', fast), named('a "b", c', slow)])).split('\r\n');
    const heads = lines[0]!.split(',');
    expect(lines).toHaveLength(4);
    expect(lines[1]).toContain(",'=1+1,");
    expect(lines[2]).toContain(',"a ""b"", c",');
    expect(heads).toEqual(expect.arrayContaining(['latency_s', 'latency_s_low', 'latency_s_high', 'missing']));
    const cells = lines[1]!.replace(/"[^"]*"/g, 'x').split(',');
    expect(cells).toHaveLength(heads.length);
    expect(cells[heads.indexOf('latency_s')]).toBe('0.01');
    expect(cells[heads.indexOf('joules_per_token')]).toBe('');
    expect(lines[1]).toContain(
      'joules_per_token joules_per_call net_joules_per_call joules_per_flop joules_per_byte paper_aec_w: a test has no meter',
    );
  });

  test('JSON holds every number or its reason, fronts and scores by id', () => {
    const made = JSON.parse(json(of([fast, slow]), { ...equalWeights, AL: 3 }));
    expect(made).toMatchObject({ schema: 'kernwatt.report/0', weights: { AL: 3, AEC: 1 } });
    const [group] = made.groups;
    expect(Object.keys(group.rows[0].values)).toEqual(quantities.map(({ key }) => key));
    expect(group.rows[0].values.latency_s).toEqual({ value: 0.01, low: 0.01 - 0.001, high: 0.01 + 0.001 });
    expect(group.rows[0].values.joules_per_call).toEqual({
      value: null,
      reason: expect.stringContaining('no meter'),
    });
    expect(group.sets[0].pareto.members).toEqual([
      { id: fast.id, beatenBy: null },
      { id: slow.id, beatenBy: fast.id },
    ]);
  });
});

test('bad lines are named and good records kept', () => {
  const text = `${JSON.stringify(fast)}\n{"schema":"other/1"}\n${JSON.stringify(slow).slice(0, 99)}`;
  const { records, problems } = parseRecords(text, 'f.jsonl');
  const made = report(['f.jsonl'], records, problems);
  expect(made.groups[0]!.rows).toHaveLength(1);
  const shownText = markdown(made, equalWeights);
  expect(shownText).toMatch(/^\*\*2 lines could not be used:\*\*$/m);
  expect(shownText).toMatch(/^- f\.jsonl:2: .*schema/m);
  expect(shownText).toMatch(/^- f\.jsonl:3: is cut off/m);
});
