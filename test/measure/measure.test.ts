// measure() and compare() on real products: what is exact is checked exactly, what is timed only for sense. Every record is held
// against the published schema.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  compare,
  type Device,
  gemm,
  gemmInt4,
  type MeasureRecord,
  measure,
  openDevice,
  type Plan,
  type Tensor,
} from '../../src/index.js';
import { complaints } from './record.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const [m, n, k] = [33, 40, 64];
const made: Tensor[] = [];
/** Disposed after the test, so that the collector cannot free anything while memory is compared. */
const keep = (tensor: Tensor) => {
  made.push(tensor);
  return tensor;
};
afterEach(() => {
  for (const tensor of made.splice(0)) tensor.dispose();
});

function product(dtype: 'f32' | 'bf16' = 'f32', on = device) {
  const x = keep(on.random([m, k], dtype, { seed: 1 }));
  const w = keep(on.random([n, k], dtype, { seed: 2 }));
  return gemm.bind({ x, w, y: keep(on.empty([m, n], dtype)) });
}
/** For tests that count bytes: what other tests let go of is collected at any time. */
const ownDevice = () => openDevice('cpu', { threads: 2 });
const quick = { quick: true, cache: 'hot', maxSeconds: 0.2, check: { seconds: 0.2 } } as const;

/** Makes a plan come to a wrong result from its nth run on. */
function corrupt(plan: Plan, from: number): void {
  const run = plan.run.bind(plan);
  let runs = 0;
  plan.run = async () => {
    const outputs = await run();
    if (++runs >= from) outputs.y!.slice([[0, 1]]).write(new Float32Array(n).fill(1e6));
    return outputs;
  };
}

function expectNoNumbers(record: MeasureRecord): void {
  expect(record.verdict).toBe('invalid');
  for (const part of ['time', 'memory', 'rate', 'utilisation', 'roofline', 'metrics', 'comparison'] as const)
    expect(record[part], part).toBeNull();
  expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
}

describe('a plan', () => {
  test('of a 4-bit weight has a compression rate once it is told the fidelity, and says so before', async () => {
    const x = keep(device.random([m, k], 'f32', { seed: 1 }));
    const w = keep(device.random([n, k], 'u4', { distribution: 'integers', low: 0, high: 15, seed: 2 }));
    const scales = keep(device.random([1, n], 'f32', { seed: 3 }));
    const { metrics } = await measure(gemmInt4.bind({ x, w, scales }), { ...quick, clocks: ['device'] });
    for (const { MCR } of [metrics!.MCR.paper, metrics!.MCR.honest])
      expect(MCR).toMatchObject({
        value: null,
        reason: expect.stringMatching(/^w is u4, and .* how close results are/),
      });
    const told = { ...quick, clocks: ['device'], fidelity: { value: 0.9, kind: 'of this test' } } as const;
    const { MCR } = (await measure(gemmInt4.bind({ x, w, scales }), told)).metrics!;
    expect(MCR.paper.MCR.value).toBeCloseTo(0.9 * 8, 12);
    // f32 beside codes of half a byte and a scale of four bytes for each row.
    expect(MCR.honest.MCR.value).toBeCloseTo((0.9 * n * k * 4) / (n * k * 0.5 + n * 4), 12);
    expect(MCR.honest.MCR).toMatchObject({ basis: expect.stringContaining('of this test, relative to f32') });
    for (const fidelity of [{ value: 0, kind: 'x' }, { value: 1 }, null] as never[])
      await expect(measure(product(), { ...quick, fidelity })).rejects.toThrow('measure: fidelity is ');
    await expect(
      compare({ a: product(), b: product() }, { ...quick, fidelity: { c: { value: 1, kind: 'x' } } }),
    ).rejects.toThrow('compare: fidelity is of c, expected one of a, b');
  });

  test('gives a valid record whose exact parts are exact', async () => {
    await using own = await ownDevice();
    const plan = product('bf16', own);
    const record = await measure(plan, { ...quick, name: 'one' });
    expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
    expect(record).toMatchObject({
      verdict: 'ok',
      case: {
        name: 'one',
        op: 'gemm',
        shape: { m, rowsW: n, k, n },
        dtype: { x: 'bf16', w: 'bf16', y: 'bf16' },
        args: { alpha: 1, activation: 'none' },
        inputs: { x: { distribution: 'normal', seed: 1 }, w: { distribution: 'normal', seed: 2 } },
      },
      work: { flops: 2 * m * n * k, minBytes: 2 * (m * k + n * k + m * n), tokens: m, params: n * k },
      kernel: { device: 'cpu', backend: 'cpu' },
      comparison: null,
    });
    const { time, correctness, memory, rate } = record;
    expect(time).toMatchObject({ cache: 'hot', copies: 1, coldBytes: null, headline: 'device' });
    for (const clock of ['device', 'stream', 'host'] as const) {
      expect(time![clock]!.min, clock).toBeGreaterThan(0);
      expect(time![clock]!.n, clock).toBeGreaterThan(0);
    }
    expect(rate!.flopsPerSecond.value).toBeCloseTo((2 * m * n * k) / time!.device!.median, -2);
    expect(correctness).toMatchObject({ state: 'passed', rows: m, failed: 0, elements: m * n });
    expect(correctness.worst).toBeLessThanOrEqual(1);
    expect(correctness.hashAfter).toBe(correctness.hashBefore);
    // Nothing was allocated while it ran, so average and peak are what the device holds, to the byte.
    expect(memory!.averageBytes.value).toBe(own.memory().currentBytes);
    expect(memory!.peakBytes.value).toBe(own.memory().currentBytes);
    expect(memory!.operandBytes.value).toBe(record.work.minBytes);
    plan.dispose();
  });

  test('cold: copies take turns, are not counted as memory in use, and are given back', async () => {
    await using own = await ownDevice();
    const plan = product('f32', own);
    const held = own.memory().currentBytes;
    const record = await measure(plan, { ...quick, cache: 'cold', clocks: ['device'], coldLimitBytes: 2 ** 20 });
    const { time, memory } = record;
    expect(time!.copies).toBeGreaterThan(1);
    expect(time!.coldBytes).toBe(time!.copies * record.work.minBytes!);
    expect(memory!.averageBytes.value).toBe(held);
    expect(memory!.rotationBytes).toBeGreaterThan(0);
    // A megabyte does not exceed any last-level cache twofold.
    expect(time!.cache).toBe('warm');
    expect(record.flags).toContain('cold-not-reached');
    await own.stream.mark();
    expect(own.memory().currentBytes).toBe(held);
    plan.dispose();
  });

  test('only the clocks that were asked for', async () => {
    const plan = product();
    const { time, metrics } = await measure(plan, { ...quick, clocks: ['host'] });
    expect(time).toMatchObject({ headline: 'host', device: null, stream: null });
    expect(metrics!.AL.honest.deviceSeconds.value).toBeNull();
    plan.dispose();
  });

  test('that is wrong has no numbers', async () => {
    const plan = product();
    corrupt(plan, 1);
    const record = await measure(plan, quick);
    expectNoNumbers(record);
    expect(record.correctness.reason).toMatch(/y\[row 0, column \d+\] is 1000000, expected/);
    plan.dispose();
  });

  test('that becomes wrong while it is measured has no numbers', async () => {
    const plan = product();
    corrupt(plan, 2);
    const record = await measure(plan, { ...quick, clocks: ['device'] });
    expectNoNumbers(record);
    expect(record.correctness.reason).toMatch(/differ from those of the same inputs before/);
    plan.dispose();
  });

  test('that leaves an element unwritten is wrong, although a right value was there before', async () => {
    const plan = product();
    await plan.run();
    plan.run = async () => plan.outputs;
    expectNoNumbers(await measure(plan, quick));
    plan.dispose();
  });

  test('unchecked is not ok', async () => {
    const plan = product();
    const record = await measure(plan, { ...quick, check: false, clocks: ['device'] });
    expect(record).toMatchObject({ verdict: 'unchecked', correctness: { state: 'unchecked', hashBefore: null } });
    expect(record.time).not.toBeNull();
    expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
    plan.dispose();
  });

  test('that overwrites an input is checked on the input as it was', async () => {
    const { x, w } = product().args;
    const c = keep(device.random([m, n], 'f32', { seed: 3 }));
    const plan = gemm.bind({ x: x!, w: w!, c, y: c, beta: 0.5 });
    const record = await measure(plan, { ...quick, clocks: ['device'] });
    expect(record.verdict).toBe('ok');
    expect(record.flags).toContain('in-place');
    plan.dispose();
  });

  test('of nothing at all', async () => {
    const plan = gemm.bind({ x: keep(device.zeros([0, 4])), w: keep(device.zeros([3, 4])) });
    const record = await measure(plan, { ...quick, cache: 'cold' });
    expect(record).toMatchObject({ verdict: 'ok', work: { flops: 0 }, roofline: null });
    expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
    plan.dispose();
  });
});

describe('a function', () => {
  test('has host time alone, of promises until they resolve', async () => {
    const wait = () => new Promise((resolve) => setTimeout(resolve, 5));
    const record = await measure(wait, { ...quick, name: 'wait' });
    expect(record).toMatchObject({
      verdict: 'unchecked',
      case: { name: 'wait', op: null },
      kernel: null,
      rate: { flopsPerSecond: { value: null } },
    });
    expect(record.time).toMatchObject({ cache: 'unknown', headline: 'host', device: null });
    // Timers may be a millisecond early.
    expect(record.time!.host!.median).toBeGreaterThan(0.003);
    expect(record.memory!.averageBytes).toMatchObject({ value: null, reason: expect.stringContaining('device') });
    expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
  });

  test('sees the allocator of the device it names', async () => {
    // A device of its own: tensors that other tests let go of are collected at any time.
    await using own = await openDevice('cpu', { threads: 1 });
    using _kept = own.empty([4096]);
    const record = await measure(() => own.empty([1024]).dispose(), { ...quick, device: own });
    expect(record.memory!.averageBytes.value).toBeGreaterThanOrEqual(16384);
    expect(record.memory!.peakBytes.value).toBeGreaterThanOrEqual(16384 + 4096);
  });

  test('that never waits can be aborted all the same', async () => {
    const busy = () => {
      for (const end = performance.now() + 1; performance.now() < end; );
    };
    const signal = AbortSignal.timeout(100);
    await expect(measure(busy, { target: 1e-9, signal })).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  test('that throws rejects with what it threw', async () => {
    const problem = new Error('no');
    const failing = () => {
      throw problem;
    };
    await expect(measure(failing, quick)).rejects.toBe(problem);
  });
});

describe('refusals', () => {
  test.each([
    [{ cache: 'cool' }, /measure: cache is cool, expected cold or hot/],
    [{ target: 0 }, /measure: target is 0, expected a number between 0 and 1/],
    [{ maxSeconds: Number.NaN }, /measure: maxSeconds is NaN/],
    [{ minSamples: 1.5 }, /measure: minSamples is 1.5/],
    [{ coldLimitBytes: -1 }, /measure: coldLimitBytes is -1/],
    [{ seed: -1 }, /measure: seed is -1/],
    [{ check: { seconds: 0 } }, /measure: check.seconds is 0/],
    [{ clocks: [] }, /measure: clocks is empty/],
    [{ clocks: ['gpu'] }, /measure: clock is gpu, expected device, stream, host/],
    [{ device: 'cpu' }, /measure: device is cpu, expected an open device/],
    [{ warmup: 3 }, /measure: warmup is not an option, expected cache,/],
  ])('%o', async (options, message) => {
    const plan = product();
    const refused = measure(plan, options as object);
    await expect(refused).rejects.toThrow(message);
    await expect(refused).rejects.toMatchObject({ code: 'ERR_KERNWATT_ARGUMENT' });
    plan.dispose();
  });

  test('what is neither plan nor function, a disposed plan, a clock that functions lack', async () => {
    await expect(measure(7 as never)).rejects.toThrow('measure: subject is 7, expected a plan or a function');
    const plan = product();
    plan.dispose();
    await expect(measure(plan)).rejects.toMatchObject({ code: 'ERR_KERNWATT_DISPOSED' });
    await expect(measure(() => {}, { clocks: ['device'] })).rejects.toThrow('clock is device, expected host for');
  });

  test('an emulated device is never timed', async () => {
    const pretended = await openDevice('cpu');
    Object.assign(pretended.info, { emulated: true });
    const plan = gemm.bind({ x: pretended.zeros([2, 2]), w: pretended.zeros([2, 2]) });
    await expect(measure(plan)).rejects.toMatchObject({ code: 'ERR_KERNWATT_UNSUPPORTED' });
    await pretended.close();
  });

  test('an aborted measurement rejects with the reason and leaves nothing behind', async () => {
    await using own = await ownDevice();
    const plan = product('f32', own);
    const held = own.memory().currentBytes;
    const controller = new AbortController();
    const reason = new Error('enough');
    const measuring = measure(plan, {
      cache: 'cold',
      coldLimitBytes: 2 ** 20,
      signal: controller.signal,
      onProgress: ({ phase }) => phase === 'device' && controller.abort(reason),
    });
    await expect(measuring).rejects.toBe(reason);
    await own.stream.mark();
    expect(own.memory().currentBytes).toBe(held);
    await expect(measure(plan, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    plan.dispose();
  });
});

describe('compare', () => {
  test('a plan with itself: a ratio around 1, records of one run', async () => {
    const plans = { a: product(), b: product() };
    const { runId, clock, baseline, ratios, records } = await compare(plans, quick);
    expect({ clock, baseline }).toEqual({ clock: 'device', baseline: 'a' });
    // Wide enough to catch nonsense alone: this machine may be busy.
    expect(ratios.b!.value).toBeGreaterThan(0.2);
    expect(ratios.b!.value).toBeLessThan(5);
    expect(records.a!.comparison).toBeNull();
    expect(records.b!.comparison).toMatchObject({
      baseline: 'a',
      baselineId: records.a!.id,
      clock: 'device',
      ratio: ratios.b!.value,
    });
    for (const record of Object.values(records)) {
      expect(record.runId).toBe(runId);
      expect(record.verdict).toBe('ok');
      expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
    }
    for (const plan of Object.values(plans)) plan.dispose();
  });

  test('a plan and a function share the host clock', async () => {
    const plan = product();
    const { clock, records } = await compare({ plan, wait: () => plan.run() }, { ...quick, baseline: 'wait' });
    expect(clock).toBe('host');
    expect(records.wait!.verdict).toBe('unchecked');
    expect(records.plan!.comparison).toMatchObject({ baseline: 'wait' });
    plan.dispose();
  });

  test.each([
    ['right', 'wrong'],
    ['wrong', 'right'],
  ])('baseline %s, a wrong one has neither numbers nor ratio', async (baseline) => {
    const plans = { right: product(), wrong: product(), other: product() };
    corrupt(plans.wrong, 1);
    const { ratios, records } = await compare(plans, { ...quick, baseline });
    expectNoNumbers(records.wrong!);
    expect(records.right!.verdict).toBe('ok');
    expect(records.right!.time!.device!.n).toBeGreaterThan(0);
    expect(ratios[baseline === 'right' ? 'wrong' : 'right']).toBeNull();
    expect(ratios.other === null).toBe(baseline === 'wrong');
    for (const record of Object.values(records)) expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
    for (const plan of Object.values(plans)) plan.dispose();
  });

  test('refuses what cannot be compared', async () => {
    const plan = product();
    await expect(compare({ plan })).rejects.toThrow('compare: number of cases is 1, expected at least 2');
    await expect(compare({ a: plan, b: plan }, { baseline: 'c' })).rejects.toThrow(
      'baseline is c, expected one of a, b',
    );
    await expect(compare({ a: plan, b: () => {} }, { clock: 'device' })).rejects.toThrow(
      'clock is device, expected host',
    );
    plan.dispose();
  });
});
