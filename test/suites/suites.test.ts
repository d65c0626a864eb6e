// Suites from made-up records: which groups there are, what resumes, what is ranked and left out, the paper's marks.
import { describe, expect, test } from 'vitest';
import type { Model } from '../../src/case.js';
import { known } from '../../src/measure/quantity.js';
import type { Clock, MeasureRecord } from '../../src/measure/record.js';
import type { FileRecord } from '../../src/records/read.js';
import { paperTables, slipsOf } from '../../src/suites/paper.js';
import { finishedRun, type Wanted } from '../../src/suites/resume.js';
import { chosenGroups, type PaperSuite, paperSuites, type SuiteGroup } from '../../src/suites/suites.js';
import { type GroupRuns, groupScores, groupText, ratioText, suiteText } from '../../src/suites/text.js';
import { clock, comparison, observed, record, subject } from '../measure/record.js';

const [attention, quantization, positions] = paperSuites as unknown as [PaperSuite, PaperSuite, PaperSuite];

describe('groups', () => {
  test('attention: three bodies, prefill with its gradients and decode, the reference first', () => {
    expect(attention.groups.map(({ name }) => name)).toEqual(
      ['0.5b', '1.5b', '3b'].flatMap((size) => [
        `efficientllm-${size} prefill 2048`,
        `efficientllm-${size} gradients 2048`,
        `efficientllm-${size} decode 2048`,
        `efficientllm-${size} paged decode 2048`,
        `efficientllm-${size} decode 2048 by cache`,
      ]),
    );
    const backward = (name: string) => name.includes('gradients');
    for (const { name, members, quick } of attention.groups)
      for (const { label, op, model } of members) {
        const kind = backward(name)
          ? 'gqa_backward'
          : label.startsWith('mla') && !name.includes('prefill')
            ? 'mla'
            : name.includes('paged') || name.includes('by cache')
              ? 'gqa_paged'
              : 'gqa';
        expect(op.spec.name).toBe(`attention_${kind}`);
        expect(backward(model.name)).toBe(backward(name));
        expect(backward(name) && quick).toBe(false);
      }
    for (const { name, members, body } of attention.groups.filter((group) => !group.name.includes('by cache'))) {
      const latent = / decode/.test(name) && !name.includes('paged') ? [] : ['mla'];
      expect(members.map(({ label }) => label)).toEqual(['mha', 'mqa', 'gqa', ...latent]);
      const [mha, mqa, gqa, mla] = members.map(({ model }) => model.dims);
      expect([mqa!.headsKv, gqa!.headsKv]).toEqual([1, 2]);
      expect(mha!.headsKv).toBe(mha!.headsQ);
      for (const dims of [mqa, gqa]) expect({ ...dims, headsKv: 0 }).toEqual({ ...mha, headsKv: 0 });
      const decoded = members[0]!.model.name.includes('decode');
      const keys = (dims: Model['dims']) => (dims === mla ? dims.dim! : dims.headsKv! * 2 * dims.dim!);
      const bytes = members.map(({ model: { dims } }) => (decoded ? 2 * keys(dims) : undefined));
      expect(members.map(({ cacheBytes }) => cacheBytes)).toEqual(bytes);
      if (mla && decoded) expect(mla.dim).toBe((mha!.headsQ! * mha!.dim!) / 8);
      expect(paperTables[body]!.rows.map(([label]) => label)).toEqual(['mqa', 'gqa', 'mla', 'nsa']);
    }
  });

  test('attention: what keeps little in the cache, in bf16 and in half the bytes', () => {
    for (const { name, members } of attention.groups.filter((group) => group.name.includes('by cache'))) {
      expect(members.map(({ label }) => label)).toEqual(['gqa', 'gqa f8', 'mla', 'mla f8']);
      const bytes = members.map(({ cacheBytes }) => cacheBytes!);
      expect([bytes[1], bytes[3]]).toEqual([bytes[0]! / 2, bytes[2]! / 2]);
      for (const { label, model, op } of members) {
        const cache = op.spec.name === 'attention_mla' ? 'cCache' : 'kCache';
        expect(model.dtypes![cache], name).toBe(label.endsWith('f8') ? 'f8e4m3' : undefined);
      }
      expect(members[1]!.model.dims).toEqual(members[0]!.model.dims);
      expect(members[3]!.model.dims).toEqual(members[2]!.model.dims);
    }
  });

  test('quantization: the same layer in three types, its head in two', () => {
    const bodies = new Set(quantization.groups.map(({ body }) => body));
    expect(bodies.size).toBe(8);
    // Four layers, decode and prefill, and the head of decode.
    expect(quantization.groups).toHaveLength(8 * 9);
    for (const body of ['qwen2.5-1.5b', 'llama-3-8b', 'qwen2.5-14b'])
      expect(paperTables[body]!.rows[0]![0]).toBe('bf16');
    for (const { name, members } of quantization.groups) {
      const [bf16, f16, int4] = members.map(({ model }) => model);
      expect(int4 === undefined, name).toBe(/ head /.test(name));
      if (int4) {
        expect(int4.dims).toEqual({ ...bf16!.dims, groups: bf16!.dims.k! / 128 });
        expect(int4.dtypes).toMatchObject({ x: 'bf16', scales: 'bf16' });
      }
      expect([bf16!.dtypes!.x, f16!.dtypes!.x]).toEqual(['bf16', 'f16']);
      expect(new Set(Object.values(f16!.dtypes!))).toEqual(new Set(['f16']));
      expect(f16!.dims).toEqual(bf16!.dims);
    }
  });

  test('positions: both kinds of pairs, a prompt and a step, with the five rows of the paper', () => {
    expect(positions.groups.map(({ name }) => name)).toEqual(
      ['prefill 2048', 'decode 64'].map((phase) => `efficientllm-1.5b positions ${phase}`),
    );
    for (const { members, body } of positions.groups) {
      const [halves, pairs] = members.map(({ model }) => model);
      expect(members.map(({ label }) => label)).toEqual(['rope', 'rope-interleaved']);
      expect(pairs!.dims).toEqual(halves!.dims);
      expect(pairs!.params).toEqual({ ...halves!.params, interleaved: true });
      const rows = paperTables[body]!.rows.map(([label]) => label);
      expect(rows).toEqual(['rope', 'absolute', 'learnable', 'relative', 'none']);
    }
  });

  test('--quick runs the smallest body and names what it leaves out', () => {
    for (const suite of paperSuites) {
      const { run, leftOut } = chosenGroups(suite, true);
      expect(new Set(run.map(({ body }) => body)).size).toBe(1);
      expect([...run.map(({ name }) => name), ...leftOut].sort()).toEqual(suite.groups.map(({ name }) => name).sort());
      expect(chosenGroups(suite, false)).toEqual({ run: suite.groups, leftOut: [] });
    }
  });
});

/** A prefill with three ways to share key heads. */
const group: SuiteGroup = { ...attention.groups[0]!, members: attention.groups[0]!.members.slice(0, 3) };
const names = group.members.map(({ model }) => model.name);
let runs = 0;

/** A run of the group by one clock: seconds and half width of the interval of each member. */
function madeRun(which: Clock, times: readonly (readonly [seconds: number, half: number])[], seed = 1): FileRecord[] {
  const runId = `run-${runs++}`;
  const made: MeasureRecord[] = [];
  for (const [i, [seconds, half]] of times.entries()) {
    const ends: [number, number] = [seconds - half, seconds + half];
    const one = { ...clock(seconds), ci95Median: ends, ci95Mean: ends };
    const base = made[0];
    const ratio = seconds / times[0]![0];
    const beside =
      base &&
      comparison({
        baseline: names[0]!,
        baselineId: base.id,
        clock: which,
        ratio,
        ci95: null,
        ratioOfMedians: ratio,
        seed,
      });
    const changes = { runId, times: { [which]: one }, comparison: beside ?? null };
    made.push({ ...record(changes, { case: { ...subject.case, name: names[i]! } }), id: `${runId}-${i}` });
  }
  return made.map((one, i) => ({ record: one, file: 'f.jsonl', line: i + 1 }));
}

const apart = [
  [0.03, 0.001],
  [0.01, 0.001],
  [0.02, 0.001],
] as const;
const whole = madeRun('device', apart);
const { tool, env } = whole[0]!.record;
const wanted: Wanted = { names, clock: 'device', cache: 'cold', seed: 1, target: 0.02, tool, env };
const changed = (changes: (one: MeasureRecord) => Partial<MeasureRecord>): FileRecord[] =>
  whole.map((one) => ({ ...one, record: { ...one.record, ...changes(one.record) } }));

describe('resume', () => {
  test('a finished run is found whatever stands around it, the last one first', () => {
    const other = madeRun('host', apart);
    const again = madeRun('device', apart);
    expect(finishedRun([...other, ...whole], wanted)).toEqual(whole);
    expect(finishedRun([...whole, ...again, ...other], wanted)).toEqual(again);
    expect(finishedRun([...whole].reverse(), wanted)).toEqual(whole);
    expect(finishedRun(other, wanted)).toBeNull();
    expect(finishedRun([], wanted)).toBeNull();
  });

  test.each<[string, FileRecord[], Partial<Wanted>]>([
    ['a member short', whole.slice(0, 2), {}],
    ['another commit', whole, { tool: { ...tool, gitSha: 'another' } }],
    ['local changes', whole, { tool: { ...tool, dirty: !tool.dirty } }],
    ['another version', whole, { tool: { ...tool, version: '9.9.9' } }],
    ['another processor', whole, { env: { ...env, cpu: { ...env.cpu, model: 'another' } } }],
    ['other kernels', whole, { env: { ...env, library: { path: 'p', build: 'b' } } }],
    ['a hot cache', whole, { cache: 'hot' }],
    ['another seed', whole, { seed: 2 }],
    ['a narrower interval', whole, { target: 0.001 }],
    ['members of separate runs', changed(({ id }) => ({ runId: id })), {}],
    ['another reference', changed(({ comparison: c }) => ({ comparison: c && { ...c, baselineId: 'x' } })), {}],
    ['a wrong result', changed(() => ({ verdict: 'invalid', time: null, metrics: null })), {}],
  ])('not with %s', (_, records, changes) => {
    expect(finishedRun(records, { ...wanted, ...changes })).toBeNull();
  });
});

describe('what a group says', () => {
  const of = (device: readonly FileRecord[], host: readonly FileRecord[]): GroupRuns => ({
    group,
    device,
    host,
    fidelity: [],
  });
  const made = of(whole, madeRun('host', apart));

  test('ranks by the device clock in the honest form, by the host clock in the form of the paper', () => {
    const reversed = madeRun('host', [...apart].reverse());
    const [honest, paper] = groupScores(of(whole, reversed));
    const latency = (one: typeof honest) => one!.members.map(({ ranks }) => ranks[one!.metrics.indexOf('AL')]!.ordinal);
    expect(latency(honest)).toEqual([3, 1, 2]);
    expect(latency(paper)).toEqual([2, 1, 3]);
    expect(honest!.labels).toEqual(['mha', 'mqa', 'gqa']);
    expect(honest!.members[1]!.score).toBe(1);
  });

  test('ratios are said in words: how much at least and at most, or that nobody can tell, and by which kernels', () => {
    const intervals = [null, [0.9, 0.95], [0.99, 1.02]] as const;
    const with95 = (changes: (one: MeasureRecord, i: number) => Partial<MeasureRecord>) =>
      whole.map((one, i) => {
        const { comparison: c } = one.record;
        const ci95 = intervals[i] ? ([...intervals[i]] as [number, number]) : null;
        return { ...one, record: { ...one.record, comparison: c && { ...c, ci95 }, ...changes(one.record, i) } };
      });
    expect(
      ratioText(
        of(
          with95(() => ({})),
          [],
        ),
      ),
    ).toMatch(
      /^mqa takes 5\.0 to 10\.0 % less than mha; both by .+\.\ngqa and mha are not told apart: .+ 0\.990? to 1\.02, holds 1; both by/,
    );
    const other = ({ kernel }: MeasureRecord, i: number) => ({
      kernel: kernel && { ...kernel, explain: { ...kernel.explain, variant: i === 1 ? 'other' : 'one' } },
    });
    expect(ratioText(of(with95(other), []))).toMatch(/^mqa takes .*; by .*other and .*one\.\n/);
    expect(ratioText(of(whole, []))).toBe('');
    expect(
      ratioText(
        of(
          with95(() => ({ time: null })),
          [],
        ),
      ),
    ).toBe('');
  });

  test('a metric that one member lacks is left out for all, with its reason', () => {
    const energy = known(1, 'J', 'a test', [0.9, 1.1]);
    const device = whole.map((one, i) => {
      const metrics = one.record.metrics!;
      const AEC = { ...metrics.AEC, honest: { joulesPerCall: energy, joulesPerToken: energy } };
      return i === 0 ? one : { ...one, record: { ...one.record, metrics: { ...metrics, AEC } } };
    });
    const [honest] = groupScores(of(device, made.host));
    expect(honest!.metrics).not.toContain('AEC');
    expect(honest!.leftOut.find(({ label }) => label === 'AEC')!.reason).toMatch(/a test has no meter/);
    expect(groupText(of(device, made.host))).toMatch(/^left out AEC: a test has no meter/m);
  });

  test('alternatives within their intervals share the range of ranks, and the score is called noise', () => {
    const near = [
      [0.0101, 0.001],
      [0.01, 0.001],
      [0.0102, 0.001],
    ] as const;
    const blurred = of(madeRun('device', near), madeRun('host', near));
    const [honest] = groupScores(blurred);
    expect(honest!.members.map(({ ranks }) => ranks[honest!.metrics.indexOf('AL')])).toEqual([
      { ordinal: 2, best: 1, worst: 3 },
      { ordinal: 1, best: 1, worst: 3 },
      { ordinal: 3, best: 1, worst: 3 },
    ]);
    const noise = /^No metric tells these apart/gm;
    expect(groupText(blurred).match(noise)).toHaveLength(2);
    expect(groupText(made)).not.toMatch(noise);
  });

  test('decoding says what a token takes in the cache, a prefill does not', () => {
    const said =
      /^Bytes that the keys and values of a token take in the cache of a layer: mha 3584, mqa 256, gqa 512\.$/m;
    expect(groupText(made)).not.toMatch(/^Bytes that/m);
    expect(groupText({ ...made, group: attention.groups[2]! })).toMatch(said);
  });

  test('a wrong result is named and ranked nowhere', () => {
    const correctness = { ...observed.correctness, state: 'failed', reason: 'o[0] is 1, expected 2' } as const;
    const wrong = { ...record({ correctness }, { case: { ...subject.case, name: names[1]! } }), id: 'wrong' };
    const device = whole.map((one, i) => (i === 1 ? { ...one, record: wrong } : one));
    expect(groupScores(of(device, made.host))[0]!.labels).toEqual(['mha', 'gqa']);
    const text = groupText(of(device, made.host));
    expect(text).toMatch(/^mqa .*INVALID$/m);
    expect(text).toContain(`INVALID ${names[1]}: o[0] is 1, expected 2`);
    const alone = changed(({ comparison: c }) => (c ? { comparison: null } : {}));
    expect(groupText(of(alone, made.host))).toMatch(/^gqa .*20\.0 ms +±5\.0 % +n\/a /m);
  });

  test('ratios come from the interleaved run, both clocks stand side by side, and the limits are said', () => {
    const text = suiteText(attention, [made]);
    expect(text).toMatch(/^mqa .* 0\.333 /m);
    expect(text).toMatch(/AL mean host \| median device/);
    expect(text).toMatch(new RegExp(`^${names[1]} .*10\\.0 ms \\| 10\\.0 ms`, 'm'));
    expect(text).toMatch(/^Not known from operators alone: perplexity; training loss/m);
    expect(text).toMatch(/^For context, Table 3 of the paper, 0\.5B bodies/m);
    expect(text).not.toMatch(/NaN|undefined/);
    expect(suiteText(attention, [])).toBe('');
  });
});

test('every mark in a table of the paper is explained', () => {
  for (const found of Object.values(paperTables)) {
    for (const row of found.rows) expect(row.length).toBe(found.heads.length);
    for (const line of slipsOf(found)) expect(line).not.toMatch(/undefined/);
  }
  expect(slipsOf(paperTables['efficientllm-1.5b']!).map((line) => line.slice(0, 3))).toEqual([
    '[a]',
    '[b]',
    '[c]',
    '[h]',
  ]);
  expect(slipsOf(paperTables['qwen2.5-1.5b']!).join('\n')).toMatch(/^\[g\] Four times the ratio of scores/m);
});
