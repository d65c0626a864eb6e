// The gate: which records may be compared and which may not, what it concludes, and how often it is wrong on simulated noise.
import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { type GateReport, gate } from '../../src/gate/gate.js';
import { metrics } from '../../src/gate/metrics.js';
import { junit, markdown, text } from '../../src/gate/text.js';
import { known, missing } from '../../src/measure/quantity.js';
import type { MeasureRecord } from '../../src/measure/record.js';
import { compared, energy, lines, made, meteredRun, normal, simulatedRun } from './records.js';

const metric = (name: string) => metrics.find((one) => one.name === name)!;
const judge = (base: MeasureRecord[], news: MeasureRecord[], limit = 1.05, name = 'time'): GateReport =>
  gate(lines('base.jsonl', base), lines('new.jsonl', news), metric(name), limit);

describe('how often it is wrong', () => {
  const runs = 400;
  /** Share of runs with this verdict, comparing a run of true ratios 1 with one of `truth`. */
  function share(verdict: string, truth: number, limit: number, cases: number, noise: number): number {
    let found = 0;
    for (let i = 0; i < runs; i++) {
      const base = simulatedRun(new Array(cases).fill(1), 10_000 + 2 * i, noise);
      const news = simulatedRun(new Array(cases).fill(truth), 10_001 + 2 * i, noise);
      if (judge(base, news, limit).verdict === verdict) found++;
    }
    return found / runs;
  }

  test.each([1, 8])('%i cases, nothing changed, limit 1: fails in at most 5 %', (cases) =>
    expect(share('fail', 1, 1, cases, 0.05)).toBeLessThanOrEqual(0.05),
  );

  test('8 cases without the correction for their number would fail more often than that', () => {
    let any = 0;
    for (let i = 0; i < runs; i++) {
      const [base, news] = [
        simulatedRun(new Array(8).fill(1), 10_000 + 2 * i, 0.05),
        simulatedRun(new Array(8).fill(1), 10_001 + 2 * i, 0.05),
      ];
      const alone = base.slice(1).map((one, k) => judge([base[0]!, one], [news[0]!, news[k + 1]!], 1).verdict);
      if (alone.includes('fail')) any++;
    }
    expect(any / runs).toBeGreaterThan(0.05);
  });

  // Noise from one that decides every time to one that can decide nothing.
  test.each([0.02, 0.1, 0.3])('10 % slower, limit 1.05, noise of a block %f: passes in at most 1 %', (noise) =>
    expect(share('pass', 1.1, 1.05, 1, noise)).toBeLessThanOrEqual(0.01),
  );

  test('10 % slower and exactly at the limit: passes in at most 2.5 % of these 400, 1 % being the level', () =>
    expect(share('pass', 1.1, 1.1, 1, 0.1)).toBeLessThanOrEqual(0.025));

  test('it decides where it can: the same passes and 10 % fails when noise is small', () => {
    expect(share('pass', 1, 1.05, 4, 0.02)).toBeGreaterThan(0.95);
    expect(share('fail', 1.1, 1.05, 4, 0.02)).toBeGreaterThan(0.95);
  });

  test('energy that is disputed, unsteady or not attributable is inconclusive on either side; time is judged all the same', () => {
    const noise = () => 0;
    const plain = () => meteredRun(energy(3, 0.01, noise), energy(5, 0.01, noise));
    expect(judge(plain(), plain(), 1.05, 'energy.perCallJ').verdict).toBe('pass');
    for (const flag of ['disputed', 'unsteady', 'not-attributable'] as const)
      for (const [at, side] of [0, 1].flatMap((i) => [[i, 'base'] as const, [i, 'new'] as const])) {
        const doubted = plain();
        const judged = { value: flag === 'disputed', reasons: ['why'] };
        const name = { disputed: 'disputed', unsteady: 'steady', 'not-attributable': 'attributable' } as const;
        const one = doubted[at]!;
        doubted[at] = { ...one, flags: [flag], energy: { ...one.energy, [name[flag]]: judged } };
        const [base, news] = side === 'base' ? [doubted, plain()] : [plain(), doubted];
        const report = judge(base, news, 1.05, 'energy.perCallJ');
        expect(report.verdict).toBe('inconclusive');
        expect(report.cases[0]!.reason).toContain(`energy is ${flag}: why`);
        expect(judge(base, news, 1.2).cases[0]!.verdict).not.toBe('inconclusive');
      }
  });

  test('energy of three windows: nothing changed fails in at most 5 %, 20 % more passes in at most 1 %', () => {
    let [fails, passes, caught] = [0, 0, 0];
    for (let i = 0; i < runs; i++) {
      const next = normal(500 + i);
      const run = (joules: number) => meteredRun(energy(joules, 0.01, next), energy(5, 0.01, next));
      const base = run(3);
      if (judge(base, run(3), 1, 'energy.perCallJ').verdict === 'fail') fails++;
      const dearer = judge(base, run(3.6), 1.05, 'energy.perCallJ').verdict;
      if (dearer === 'pass') passes++;
      if (dearer === 'fail') caught++;
    }
    expect(fails / runs).toBeLessThanOrEqual(0.05);
    expect(passes / runs).toBeLessThanOrEqual(0.01);
    expect(caught / runs).toBeGreaterThan(0.9);
  });
});

describe('what may be compared', () => {
  const run = (ratio: number, ci95: [number, number] | null, name = 'mine') => {
    const reference = made('plain');
    return [reference, compared(name, reference, ratio, ci95)];
  };

  test('each side with the same reference in its own run: the ratio of the ratios', () => {
    const report = judge(run(0.8, [0.79, 0.81]), run(0.96, [0.95, 0.97]));
    expect(report).toMatchObject({ schema: 'kernwatt.gate/0', metric: 'time', verdict: 'fail', problems: [] });
    expect(report.cases).toEqual([
      expect.objectContaining({
        name: 'mine',
        method: 'normalised',
        verdict: 'fail',
        ratio: expect.closeTo(1.2, 9),
        runs: { base: 1, new: 1 },
        places: ['new.jsonl:2', 'base.jsonl:2'],
        reason: 'the ratio is above the limit',
      }),
    ]);
    expect(report.cases[0]!.ci95![0]).toBeGreaterThan(1.17);
    expect(report.notes).toEqual([expect.stringMatching(/^one run on each side: /)]);
    expect(judge(run(0.8, [0.79, 0.81]), run(0.8, [0.79, 0.81])).verdict).toBe('pass');
    expect(judge(run(0.8, [0.6, 1]), run(0.8, [0.6, 1]))).toMatchObject({
      verdict: 'inconclusive',
      cases: [{ reason: expect.stringMatching(/either side/) }],
    });
  });

  test('both in one run, one file given twice: the ratio of that run', () => {
    const both = run(1.2, [1.18, 1.22], 'new build');
    const report = judge(both, both);
    expect(report.verdict).toBe('fail');
    expect(report.cases).toMatchObject([{ name: 'new build', method: 'interleaved', ratio: 1.2 }]);
    expect(report.notes).toEqual([]);
    const [old, renewed] = run(0.9, [0.88, 0.92], 'new build');
    expect(judge([old!], [renewed!])).toMatchObject({
      verdict: 'pass',
      cases: [{ method: 'interleaved', ratio: 0.9 }],
    });
  });

  test('numbers of different runs without a reference are never divided', () => {
    const report = judge([made('a')], [made('a')]);
    expect(report.verdict).toBe('inconclusive');
    expect(report.cases).toMatchObject([
      { ratio: null, method: null, reason: expect.stringMatching(/must not be divided/) },
    ]);
  });

  test('another reference, another clock, too few blocks', () => {
    const other = made('other');
    const reason = (news: MeasureRecord[]) => judge(run(1, [0.99, 1.01]), news).cases[0]!.reason;
    expect(reason([other, compared('mine', other, 1, [0.99, 1.01])])).toMatch(/different references/);
    const [plain, mine] = run(1, [0.99, 1.01]);
    expect(reason([plain!, { ...mine!, comparison: { ...mine!.comparison!, clock: 'host' } }])).toMatch(
      /clocks, host and device/,
    );
    expect(reason(run(1, null))).toMatch(/blocks are too few/);
  });

  test('another size, type, input or cache state is another case', () => {
    const [plain, mine] = run(1, [0.99, 1.01]);
    const changed = [
      { case: { ...mine!.case, shape: { m: 11, rowsW: 20, k: 30 } } },
      { case: { ...mine!.case, dtype: { x: 'bf16', w: 'f32', y: 'f32' } } },
      { case: { ...mine!.case, inputs: { x: { distribution: 'zeros', seed: 1 } } } },
      { time: { ...mine!.time!, cache: 'hot' as const } },
    ];
    for (const change of changed) {
      const report = judge(run(1, [0.99, 1.01]), [plain!, { ...mine!, ...change }]);
      expect(report.verdict).toBe('inconclusive');
      expect(report.cases).toMatchObject([{ reason: 'only in BASE: it was not measured again' }]);
      expect(report.notes).toEqual([expect.stringMatching(/^new.jsonl:2: mine is in NEW alone/)]);
    }
    // The order in which a file spells its fields says nothing.
    const shuffled = { ...mine!, case: { ...mine!.case, shape: { k: 30, rowsW: 20, m: 10 } } };
    expect(judge(run(1, [0.99, 1.01]), [plain!, shuffled]).verdict).toBe('pass');
  });

  test('a reference that moved is mentioned', () => {
    const [plain, mine] = run(1, [0.99, 1.01]);
    const slow = { ...plain!.time!, device: { ...plain!.time!.device!, median: 0.03 } };
    const report = judge(run(1, [0.99, 1.01]), [{ ...plain!, time: slow }, mine!]);
    expect(report.notes[0]).toMatch(/^the reference "plain" had 1.50 times its time of BASE in NEW/);
  });

  test('several runs on each side are taken together', () => {
    const runs = (ratios: number[]) => ratios.flatMap((ratio) => run(ratio, [ratio * 0.999, ratio * 1.001]));
    const report = judge(runs([0.9, 1, 1.1]), runs([0.95, 1.05, 1.15]));
    expect(report.cases).toMatchObject([{ runs: { base: 3, new: 3 }, verdict: 'inconclusive' }]);
    expect(report.notes).toEqual([]);
  });

  test('a wrong output fails whatever it costs', () => {
    const [plain, mine] = run(1, [0.99, 1.01]);
    const wrong: MeasureRecord = {
      ...mine!,
      verdict: 'invalid',
      correctness: { ...mine!.correctness, state: 'failed', reason: 'y[0] is 7, expected 1' },
      time: null,
      memory: null,
      metrics: null,
      comparison: null,
    };
    expect(judge(run(1, [0.99, 1.01]), [plain!, wrong])).toMatchObject({
      verdict: 'fail',
      problems: [],
      cases: [{ name: 'mine', verdict: 'fail', reason: 'wrong output: y[0] is 7, expected 1' }],
    });
  });

  test('counted bytes may be compared across runs', () => {
    const bytes = (count: number) => {
      const plain = made('a');
      return { ...plain, memory: { ...plain.memory!, workspaceBytes: known(count, 'B', 'a test') } };
    };
    const verdict = (before: number, after: number) =>
      judge([bytes(before)], [bytes(after)], 1.1, 'memory.workspaceBytes');
    expect(verdict(1000, 1100)).toMatchObject({
      verdict: 'pass',
      cases: [{ method: 'exact', ratio: 1.1, ci95: null }],
    });
    expect(verdict(1000, 1101)).toMatchObject({ verdict: 'fail', cases: [{ reason: '1000 bytes became 1101' }] });
    expect(verdict(0, 0).verdict).toBe('pass');
    expect(verdict(0, 1)).toMatchObject({ verdict: 'fail', cases: [{ ratio: null }] });
  });
});

describe('bad input: every line is named, and good cases are judged all the same', () => {
  const pair = (name: string, ratio = 1) => {
    const reference = made('plain');
    return [reference, compared(name, reference, ratio, [0.99 * ratio, 1.01 * ratio])];
  };

  test('problems of the files', () => {
    const news = lines('new.jsonl', pair('a'));
    news.problems.push({ file: 'new.jsonl', line: 3, reason: 'is cut off' });
    const report = gate(lines('base.jsonl', pair('a')), news, metric('time'), 1.05);
    expect(report).toMatchObject({ verdict: 'bad-input', cases: [{ verdict: 'pass' }] });
    expect(report.problems).toEqual([{ file: 'new.jsonl', line: 3, reason: 'is cut off' }]);
  });

  test('mixed machines', () => {
    const [plain, mine] = pair('a');
    const env = { ...mine!.env, cpu: { ...mine!.env.cpu, model: 'another' } };
    const report = judge(pair('a'), [plain!, { ...mine!, env }]);
    expect(report).toMatchObject({ verdict: 'bad-input', cases: [] });
    expect(report.problems).toEqual([
      {
        file: 'base.jsonl',
        line: 2,
        reason: expect.stringMatching(/^cpu.model is .*, but another in new.jsonl:2; numbers of different machines/),
      },
    ]);
  });

  test('a metric that was not metered, with the reason of the record', () => {
    const report = judge(pair('a'), pair('a'), 1.05, 'energy.perCallJ');
    expect(report.verdict).toBe('bad-input');
    expect(report.problems).toEqual([
      {
        file: 'new.jsonl',
        line: 2,
        reason: expect.stringMatching(/^energy.perCallJ is not known: a test has no meter/),
      },
      { file: 'base.jsonl', line: 2, reason: expect.stringMatching(/^energy.perCallJ is not known/) },
    ]);
    const [plain, mine] = pair('a');
    const hidden = { ...mine!, memory: { ...mine!.memory!, peakBytes: missing('B', 'hidden') } };
    expect(judge([plain!, hidden], [plain!, made('a')], 1, 'memory.peakBytes').problems[0]!.reason).toMatch(/hidden$/);
  });

  test('nothing in common, nothing at all', () => {
    expect(judge([], []).notes).toEqual([expect.stringMatching(/hold no case to judge/)]);
    expect(judge([], pair('a')).verdict).toBe('bad-input');
  });
});

describe('what it prints', () => {
  const nasty = 'a|b <c> & "d"\u0007 `e`\n]]>';
  const report = (): GateReport => {
    const [one, two] = [made('plain'), made('plain')];
    const narrow = (r: number): [number, number] => [0.99 * r, 1.01 * r];
    const base = [
      one,
      compared('same', one, 1, narrow(1)),
      compared(nasty, one, 1, narrow(1)),
      compared('gone', one, 1, narrow(1)),
    ];
    const news = lines('new.jsonl', [two, compared('same', two, 1, narrow(1)), compared(nasty, two, 2, narrow(2))]);
    news.problems.push({ file: 'new.jsonl', line: 4, reason: 'is cut off' });
    return gate(lines('base.jsonl', base), news, metric('time'), 1.05);
  };

  test('a table, reasons, notes and a last line that says it all', () => {
    const out = text(report());
    expect(out).toMatch(/^same \(cold\) +1.000 +0.986 to 1.014 +normalised +1 \/ 1 +pass$/m);
    expect(out).toMatch(/^inconclusive gone \(cold\): only in BASE/m);
    expect(out.trimEnd().split('\n').at(-1)).toBe(
      'bad-input: time at most 1.05 times BASE; 1 pass, 1 fail, 1 inconclusive; 1 line could not be used',
    );
  });

  test('Markdown whose table has as many cells in every row, whatever a case is called', () => {
    const rows = markdown(report())
      .split('\n')
      .filter((line) => line.startsWith('|'));
    expect(rows).toHaveLength(5);
    for (const row of rows) expect(row.replace(/\\\|/g, '').split('|')).toHaveLength(8);
    expect(rows[3]).toContain('a\\|b \\<c\\>');
  });

  test('JUnit that an XML parser reads back', () => {
    const script = `import json, sys, xml.etree.ElementTree as tree
root = tree.fromstring(sys.stdin.buffer.read())
print(json.dumps([[dict(root.attrib)], [[case.get('name')] + [child.tag for child in case] for case in root.iter('testcase')]]))`;
    const parsed = spawnSync('python3', ['-c', script], { input: junit(report()), encoding: 'utf8' });
    expect(parsed.stderr).toBe('');
    expect(JSON.parse(parsed.stdout)).toEqual([
      [{ tests: '4', failures: '1', errors: '1', skipped: '1' }],
      [
        ['gemm: same (cold)'],
        [`gemm: ${nasty.replace('\u0007', '\uFFFD')} (cold)`, 'failure'],
        ['gemm: gone (cold)', 'skipped'],
        ['new.jsonl:4', 'error'],
      ],
    ]);
  });
});
