// The checker itself: it passes what is right and catches each way of being wrong, with a line that repeats it.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  attentionGqa,
  type Case,
  checkCase,
  checkFuzz,
  checkOp,
  type Device,
  gemm,
  KernwattError,
  kvAppend,
  type Operator,
  openDevice,
} from '../src/index.js';
import { native } from '../src/native.js';
import { nativeArgs } from '../src/solve.js';
import { Tensor } from '../src/tensor.js';
import { collect } from './native/raw.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu', { threads: 1 });
});
afterAll(() => device.close());

type Named = Record<string, Tensor>;

/** gemm with something wrong: `spoil` sees the arguments and results of a call that was right. */
const spoiled = (spoil: (args: Named, outputs: Named) => void): Operator => ({
  ...gemm,
  spec: gemm.spec as unknown as Operator['spec'],
  bind: gemm.bind as Operator['bind'],
  run(args, options) {
    const outputs = gemm.run(args, options);
    // The exact result comes from the reference, which stays right.
    if (options?.backend !== 'ref') spoil(args as Named, outputs);
    return outputs;
  },
});

const plain: Case = { name: 'plain', dims: { m: 5, rowsW: 6, k: 7 } };
const exact: Case = { ...plain, name: 'exact', exact: true };
const padded: Case = { ...exact, name: 'padded', layout: { x: 'padded', w: 'padded', y: 'padded' } };

/** One element of the memory behind a view, `at` elements after its first. */
function poke(view: Tensor, at: number, value: number): void {
  using element = new Tensor(view.storage.retain(), view.nativeView.offset + at, view.dtype, [1], [1]);
  element.write([value]);
}

test.each([plain, exact, padded])('what is right passes: $name', async (c) => {
  const outcome = await checkCase(
    spoiled(() => {}),
    c,
    { device },
  );
  expect(outcome).toMatchObject({
    state: 'passed',
    reasons: [],
    op: 'gemm',
    device: 'cpu',
    backend: 'cpu',
    seed: 0,
    case: c,
  });
  expect(outcome.outputs[0]).toMatchObject({ field: 'y', elements: 30, failed: 0 });
  expect(outcome.outputs[0]!.worst).toBeLessThanOrEqual(1);
});

describe('caught:', () => {
  const reasons = async (c: Case, spoil: (args: Named, outputs: Named) => void) => {
    const outcome = await checkCase(spoiled(spoil), c, { device });
    expect(outcome.state).toBe('failed');
    return outcome.reasons.join('\n');
  };

  test('a wrong element, with its place', async () => {
    const found = await reasons(plain, (_, { y }) => poke(y!, 6 * 3 + 2, 100));
    expect(found).toMatch(
      /^y: 1 of 30 elements are outside the tolerance; worst at row 3, column 2: 100, expected -?[\d.]+ within [\d.e-]+$/,
    );
  });

  test('an element that was never written', async () => {
    const found = await reasons(plain, (_, { y }) => poke(y!, 0, Number.NaN));
    expect(found).toMatch(/^y: 1 of 30 elements are outside the tolerance; worst at row 0, column 0: NaN/);
  });

  test('an exact result off by the smallest step there is', async () => {
    const big: Case = { ...exact, dims: { m: 1, rowsW: 1, k: 1 } };
    const [right] = await gemmOf(big);
    const next = new Float32Array(Uint32Array.of(new Uint32Array(Float32Array.of(right!).buffer)[0]! + 1).buffer)[0]!;
    const found = await reasons(big, (_, { y }) => poke(y!, 0, next));
    expect(found).toContain(`y: 1 of 1 elements differ from the exact result; element 0 is ${next}, expected ${right}`);
  });

  test('a write after the end, before the beginning, and between the rows', async () => {
    for (const [c, at] of [
      [exact, 30],
      [exact, -1],
      [padded, 6],
    ] as const)
      expect(await reasons(c, (_, { y }) => poke(y!, at, 0))).toMatch(
        /^memory outside y was overwritten, \d+ elements into a buffer of \d+/,
      );
  });

  test('an input that was modified, inside or around', async () => {
    expect(await reasons(exact, ({ x }) => poke(x!, 0, 77))).toBe(
      'x was modified at element 0 of its memory, expected it only to be read',
    );
    expect(await reasons(exact, ({ w }) => poke(w!, -5, 77))).toMatch(/^memory outside w was overwritten/);
  });

  test('a stray write into a tensor that is updated in place, however little it changes', async () => {
    const c: Case = {
      name: 'updated',
      dims: { batch: 1, len: 1, headsKv: 1, dim: 4, dimV: 4, pages: 2, maxPages: 1, pageSize: 2 },
      values: { lensKv: [1], pageTable: [1] },
      exact: true,
    };
    const check = (spoil: (kCache: Tensor) => void) => {
      const run: Operator['run'] = (args, options) => {
        const outputs = kvAppend.run(args, options);
        if (options?.backend !== 'ref') spoil(outputs.kCache);
        return outputs;
      };
      const spec = kvAppend.spec as unknown as Operator['spec'];
      return checkCase({ ...kvAppend, spec, bind: kvAppend.bind as Operator['bind'], run }, c, { device });
    };
    expect(await check(() => {})).toMatchObject({ state: 'passed', reasons: [] });
    // Slot 0 of page 1 is what is written; page 0 and the other slot stay.
    for (const at of [0, 3, 12])
      expect((await check((kCache) => poke(kCache, at, 100))).reasons[0]).toMatch(
        /^k_cache: 1 of 16 elements are outside the tolerance; worst at row \d, column \d: 100, expected -?\d within/,
      );
    expect((await check((kCache) => poke(kCache, 16, 1))).reasons[0]).toMatch(/^memory outside kCache was overwritten/);
  });

  test('an input that was read outside its view', async () => {
    const found = await reasons(padded, ({ x }, { y }) => {
      using beyond = new Tensor(x!.storage.retain(), x!.nativeView.offset + 7, 'f32', [1], [1]);
      using element = new Tensor(y!.storage.retain(), y!.nativeView.offset, 'f32', [1], [1]);
      element.copyFrom(beyond);
    });
    expect(found).toContain('NaN');
  });

  test('an error other than declining', async () => {
    const broken = {
      ...spoiled(() => {}),
      run: () => {
        throw new KernwattError('CUDA', 'gemm: lost');
      },
    };
    expect(await checkCase(broken, exact, { device })).toMatchObject({
      state: 'failed',
      reasons: ['ERR_KERNWATT_CUDA: gemm: lost'],
    });
  });
});

test('sampled rows take what belongs to them in every output', async () => {
  const [q, k, v] = [0, 1, 2].map((seed) => device.random([2, 5, 3, 8], 'f32', { seed }));
  const args = { q: q!, k: k!, v: v!, scale: 0.5 };
  using plan = attentionGqa.bind(args);
  const { y, lse } = await plan.run();
  const check = (rows: number[]) => {
    const raw = nativeArgs(attentionGqa.compiled, plan.args as Named, plan.params);
    return native().check('attention_gqa', device.stream.handle, raw, Float64Array.from(rows));
  };
  // Row (1, 3, 2) of y, whose logarithm is element (1, 2, 3) of lse.
  const row = (1 * 5 + 3) * 3 + 2;
  expect(await check([0, row])).toMatchObject([
    { field: 'y', elements: 16, failed: 0 },
    { field: 'lse', elements: 2, failed: 0 },
  ]);
  poke(lse, (1 * 3 + 2) * 5 + 3, 77);
  expect(await check([row])).toMatchObject([{ failed: 0 }, { failed: 1, row: 5, column: 3, actual: 77 }]);
  expect((await check([0, row - 1]))[1]!.failed).toBe(0);
  poke(y, row * 8 + 4, 77);
  expect((await check([row]))[0]).toMatchObject({ failed: 1, row, column: 4, actual: 77 });
  await expect((async () => check([30]))()).rejects.toThrow(
    'check: rows[0] is 30.000000, expected a row of y, which has 30',
  );
  for (const t of [q!, k!, v!, y, lse]) t.dispose();
});

/** The exact result of a case with seed 0. */
async function gemmOf(c: Case): Promise<number[]> {
  let found: number[] = [];
  const waiting: Promise<void>[] = [];
  await checkCase(
    spoiled((_, { y }) =>
      waiting.push(
        y!.read().then((v) => {
          found = Array.from(v);
        }),
      ),
    ),
    c,
    { device },
  );
  await Promise.all(waiting);
  return found;
}

test('declining is neither a pass nor a failure, and keeps its reason', async () => {
  const declining = {
    ...spoiled(() => {}),
    run: () => {
      throw new KernwattError('UNSUPPORTED', 'gemm: k is 7, expected 8');
    },
  };
  expect(await checkCase(declining, exact, { device })).toMatchObject({
    state: 'declined',
    reasons: ['gemm: k is 7, expected 8'],
  });
});

test('an exception that is not an error of this library is a bug and passes through', async () => {
  const broken = {
    ...spoiled(() => {}),
    run: () => {
      throw new TypeError('bug');
    },
  };
  await expect(checkCase(broken, exact, { device })).rejects.toThrow(TypeError);
});

test('a case that the operator has no place for is refused by name', async () => {
  const outcome = await checkCase(gemm, { ...plain, with: ['biass'] }, { device });
  expect(outcome).toMatchObject({ state: 'failed' });
  expect(outcome.reasons[0]).toContain('biass is not an argument; did you mean bias?');
});

test('every outcome carries the command that repeats it', async () => {
  expect((await checkCase(gemm, plain, { device })).repro).toBe('kernwatt check gemm --backend cpu --case "plain"');
  expect((await checkCase(gemm, plain, { device, seed: 3 })).repro).toBe(
    'kernwatt check gemm --backend cpu --seed 3 --case "plain"',
  );
  expect((await checkCase(gemm, plain, { device, backend: 'ref' })).repro).toBe(
    'kernwatt check gemm --backend ref --case "plain"',
  );
  expect((await checkFuzz(gemm, { device, seed: 12 })).repro).toBe(
    'kernwatt check gemm --backend cpu --seed 12 --fuzz 1',
  );
  const [weakest] = native().cpu().isa;
  if (native().cpu().isa.length === 1) return;
  await using old = await openDevice('cpu', { isa: weakest!, threads: 1 });
  expect((await checkCase(gemm, plain, { device: old })).repro).toBe(
    `kernwatt check gemm --backend cpu --isa ${weakest} --case "plain"`,
  );
});

test('checkOp yields each case as it is known, filtered or random, and stops when the caller does', async () => {
  const names: string[] = [];
  for await (const { case: c } of checkOp(gemm, { device, only: ({ name }) => name.startsWith('bf16, k 1') }))
    names.push(c.name);
  expect(names).toEqual(
    gemm.spec
      .cases()
      .map((c) => c.name)
      .filter((name) => name.startsWith('bf16, k 1')),
  );
  const seeds: number[] = [];
  for await (const { seed } of checkOp(gemm, { device, fuzz: 10, seed: 5 })) if (seeds.push(seed) === 3) break;
  expect(seeds).toEqual([5, 6, 7]);
});

test('nothing stays allocated, whatever the outcome', async () => {
  await device.stream.sync();
  await collect();
  const before = native().counters();
  await checkCase(gemm, padded, { device });
  await checkCase(
    spoiled((_, { y }) => poke(y!, 0, 5)),
    exact,
    { device },
  );
  await checkCase(gemm, { ...plain, inPlace: 'c', with: ['c'] }, { device });
  await device.stream.sync();
  expect(native().counters()).toMatchObject({ buffers: before.buffers, plans: before.plans });
});
