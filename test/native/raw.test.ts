// What only the raw interface shows: wrong handles, double releases, full queues, memory that is not there, and that
// everything comes back.
import { describe, expect, test } from 'vitest';
import { codes } from '../../src/errors.js';
import { type BufferHandle, native, type PlanHandle } from '../../src/native.js';
import { Bench, collect } from './raw.js';

const code = (name: string) => expect.objectContaining({ code: `ERR_KERNWATT_${name}` });
/** What body throws, or rejects with. */
async function failure(body: () => unknown): Promise<{ code?: string; message: string }> {
  try {
    await body();
  } catch (error) {
    return error as { code?: string; message: string };
  }
  return { message: 'nothing was thrown' };
}

describe('a handle of the wrong kind is refused, whatever takes it', () => {
  const notHandles = () => [undefined, null, 0, 'x', {}, [], () => 0, new Float32Array(1), Symbol('x'), 1n];
  const takesFirst = [
    'deviceInfo',
    'memory',
    'closeDevice',
    'createStream',
    'destroyStream',
    'mark',
    'syncNow',
    'alloc',
    'free',
    'wrap',
    'write',
    'read',
    'copy',
    'fill',
    'hash',
    'rebindPlan',
    'enqueue',
    'enqueueFunction',
    'explain',
    'workspaceBytes',
    'destroyPlan',
    'sample',
  ] as const;

  test.each(takesFirst)('%s', async (name) => {
    const bench = await Bench.open();
    const { plan, args } = bench.square(4);
    const call = native()[name] as (...given: unknown[]) => unknown;
    const handles = { device: bench.device, stream: bench.stream, buffer: args.x.buffer, plan };
    const right = name === 'free' ? 'buffer' : /Plan|enqueue|explain|workspace/.test(name) ? 'plan' : undefined;
    const takesDevice = ['deviceInfo', 'memory', 'closeDevice', 'createStream', 'alloc', 'wrap'].includes(name);
    const own = right ?? (takesDevice ? 'device' : 'stream');
    const wrong = Object.entries(handles).filter(([kind]) => kind !== own);
    expect(await failure(() => call())).toEqual(code('ARGUMENT'));
    for (const value of [...notHandles(), ...wrong.map(([, handle]) => handle)])
      expect(await failure(() => call(value, 1, 2, 3))).toEqual(code('ARGUMENT'));
    await bench.close();
  });

  test('createPlan, declines, check', async () => {
    const bench = await Bench.open();
    const { args } = bench.square(4);
    const n = native() as unknown as Record<string, (...given: unknown[]) => unknown>;
    for (const value of [...notHandles(), args.x.buffer]) {
      expect(await failure(() => n.createPlan!('gemm', 'cpu', value, args))).toEqual(code('ARGUMENT'));
      expect(await failure(() => n.declines!('gemm', 'cpu', value, args))).toEqual(code('ARGUMENT'));
      expect(await failure(() => n.check!('gemm', value, args, null))).toEqual(code('ARGUMENT'));
      expect(await failure(() => n.createPlan!('gemm', 'cpu', bench.stream, value))).toEqual(code('ARGUMENT'));
      expect(await failure(() => n.createPlan!('gemm', 'cpu', bench.stream, { ...args, x: value }))).toEqual(
        code('ARGUMENT'),
      );
    }
    await bench.close();
  });
});

describe('arguments', () => {
  test.each([
    [{ offset: -1 }, 'ARGUMENT'],
    [{ offset: 0.5 }, 'ARGUMENT'],
    [{ offset: 1 }, 'ARGUMENT'],
    [{ offset: 2 ** 60 }, 'ARGUMENT'],
    [{ shape: [4, 5] }, 'ARGUMENT'],
    [{ shape: [2 ** 40, 2 ** 40] }, 'ARGUMENT'],
    [{ shape: [4] }, 'SHAPE'],
    [{ shape: [] }, 'SHAPE'],
    [{ shape: [-1, 4] }, 'SHAPE'],
    [{ shape: Array(9).fill(1), stride: Array(9).fill(1) }, 'SHAPE'],
    [{ shape: 'abc' }, 'ARGUMENT'],
    [{ shape: [Number.NaN, 4] }, 'ARGUMENT'],
    [{ stride: [2 ** 52, 2 ** 52] }, 'ARGUMENT'],
    [{ stride: [-4, 1] }, 'ARGUMENT'],
    [{ dtype: 12 }, 'DTYPE'],
    [{ dtype: -1 }, 'DTYPE'],
    [{ dtype: 'f32' }, 'ARGUMENT'],
    [{ dtype: 9, offset: 1 }, 'ARGUMENT'],
    [{ dtype: 9, stride: [8, 1] }, 'ARGUMENT'],
  ])('a view with %j is refused with %s', async (change, expected) => {
    const bench = await Bench.open();
    const view = { ...bench.empty([4, 4]), ...change } as never;
    expect(await failure(() => native().hash(bench.stream, view))).toEqual(code(expected));
    await bench.close();
  });

  test('of the wrong type, of an unknown operator, or for another backend', async () => {
    const bench = await Bench.open();
    const { args } = bench.square(4);
    const plan = (op: string, backend: string, more: object) => () =>
      native().createPlan(op, backend as 'cpu', bench.stream, { ...args, ...more });
    expect(await failure(plan('gemm', 'cpu', { alpha: 'x' }))).toEqual(code('ARGUMENT'));
    expect(await failure(plan('gemm', 'cpu', { transX: 1, trans_x: 1 }))).toEqual(code('ARGUMENT'));
    expect(await failure(plan('gemm', 'cpu', { activation: 99 }))).toEqual(code('ARGUMENT'));
    expect(await failure(plan('gemm', 'cpu', { x: undefined }))).toMatchObject({ message: /^gemm: x is missing/ });
    expect(await failure(plan('conv', 'cpu', {}))).toEqual(code('ARGUMENT'));
    expect(await failure(plan('gemm', 'library', {}))).toEqual(code('ARGUMENT'));
    expect(await failure(plan('gemm', 'cpu', { y: { ...args.y, dtype: 5 } }))).toEqual(code('UNSUPPORTED'));
    await bench.close();
  });

  test('a tensor of another device', async () => {
    const [one, two] = await Promise.all([Bench.open(), Bench.open()]);
    expect(await failure(() => native().hash(one.stream, two.empty([4])))).toEqual(code('ARGUMENT'));
    await Promise.all([one.close(), two.close()]);
  });

  test('arrays of the wrong length or kind', async () => {
    const bench = await Bench.open();
    const view = bench.empty([4]);
    const write = (data: unknown, raw = false) => failure(() => native().write(bench.stream, view, data as never, raw));
    expect(await write(new Float32Array(3))).toEqual(code('SHAPE'));
    expect(await write(new Uint8Array(15), true)).toEqual(code('SHAPE'));
    expect(await write(new BigInt64Array(4))).toEqual(code('ARGUMENT'));
    expect(await write([1, 2, 3, 4])).toEqual(code('ARGUMENT'));
    expect(await write(new DataView(new ArrayBuffer(16)))).toEqual(code('ARGUMENT'));
    const resizable = new (ArrayBuffer as new (n: number, o: object) => ArrayBuffer)(16, { maxByteLength: 32 });
    expect(await write(new Float32Array(resizable))).toMatchObject({ message: /resizable/ });
    await bench.close();
  });

  test('a thread count or instruction set there is not', async () => {
    const open = (more: object) => failure(() => native().openDevice({ kind: 'cpu', ...more } as never));
    for (const threads of [0, -1, 1.5, 1e9, '2']) expect(await open({ threads })).toEqual(code('ARGUMENT'));
    expect(await open({ isa: 'sse' })).toEqual(code('ARGUMENT'));
    expect(await open({ kind: 'gpu' })).toEqual(code('ARGUMENT'));
  });
});

describe('released things', () => {
  test('may be released again, and are refused with DISPOSED', async () => {
    const bench = await Bench.open();
    const { plan, enqueue, args } = bench.square(4);
    native().free(args.w.buffer);
    native().free(args.w.buffer);
    expect(await failure(enqueue)).toEqual(code('DISPOSED'));
    expect(await failure(() => native().hash(bench.stream, args.w))).toEqual(code('DISPOSED'));
    native().destroyPlan(plan);
    native().destroyPlan(plan);
    expect(await failure(enqueue)).toEqual(code('DISPOSED'));
    expect(await failure(() => native().explain(plan))).toEqual(code('DISPOSED'));
    expect(await failure(() => native().rebindPlan(plan, args as never))).toEqual(code('DISPOSED'));
    await native().destroyStream(bench.stream);
    expect(await failure(() => native().destroyStream(bench.stream))).toEqual(code('DISPOSED'));
    expect(await failure(() => native().mark(bench.stream))).toEqual(code('DISPOSED'));
    await bench.close();
    expect(await failure(() => bench.close())).toEqual(code('DISPOSED'));
    expect(await failure(() => native().alloc(bench.device, 4))).toEqual(code('DISPOSED'));
    expect(await failure(() => native().memory(bench.device))).toEqual(code('DISPOSED'));
    native().free(args.x.buffer);
  });

  test('memory goes back only after the work that uses it', async () => {
    const bench = await Bench.open();
    const { plan, enqueue, args } = bench.square(512);
    const before = native().memory(bench.device).currentBytes;
    await bench.mark();
    for (let i = 0; i < 8; i++) enqueue();
    const { x, w, y } = args;
    for (const { buffer } of [x, w]) native().free(buffer);
    native().destroyPlan(plan);
    expect(native().memory(bench.device).currentBytes).toBe(before);
    const values = await bench.read(y);
    expect(values.some((v) => v !== 0 && Number.isFinite(v))).toBe(true);
    await bench.mark();
    expect(native().memory(bench.device).currentBytes).toBe(before - 2 * 512 * 512 * 4);
    await bench.close();
  });

  test('closing a device waits for its work and gives all of its memory back', async () => {
    await collect();
    const before = native().counters();
    const bench = await Bench.open();
    const { enqueue } = bench.square(256);
    for (let i = 0; i < 16; i++) enqueue();
    const marked = bench.mark();
    await bench.close();
    await marked;
    expect(native().counters()).toEqual(before);
  });

  test('what nobody released is collected', async () => {
    await collect();
    const before = native().counters();
    await (async () => {
      for (let i = 0; i < 50; i++) {
        const bench = await Bench.open({ kind: 'cpu', threads: 1 });
        bench.square(8).enqueue();
        await bench.mark();
      }
    })();
    await collect();
    expect(native().counters()).toEqual(before);
  });

  test('ten thousand tensors and plans leave nothing behind', async () => {
    const bench = await Bench.open();
    const { args } = bench.square(4);
    await collect();
    const before = native().counters();
    for (let i = 0; i < 10_000; i++) {
      const y = bench.empty([4, 4]);
      const plan = bench.plan({ ...args, y });
      native().enqueueFunction(plan)();
      native().destroyPlan(plan);
      native().free(y.buffer);
      if (i % 1000 === 999) await bench.mark();
    }
    expect({ ...native().counters(), bytes: 0 }).toEqual({ ...before, bytes: 0 });
    await bench.close();
  });
});

describe('a full queue', () => {
  test('refuses with BUSY, naming its capacity, and takes calls again after a mark', async () => {
    const bench = await Bench.open();
    const { enqueue, args } = bench.square(128);
    native().syncNow(bench.stream); // a mark resolves just before it counts as done itself
    let queued = 0;
    const busy = await failure(() => {
      for (; queued < 1e6; queued++) enqueue();
    });
    expect(busy).toEqual(code('BUSY'));
    expect(busy.message).toMatch(/queued calls is 4096, expected fewer than 4096/);
    expect(queued).toBeGreaterThanOrEqual(4096);
    // Reads and marks are taken still: they are how a caller waits.
    const read = bench.read(args.y);
    await bench.mark();
    expect((await read).length).toBe(128 * 128);
    enqueue();
    await bench.mark();
    await bench.close();
  });
});

describe('memory that is not there', () => {
  test('is refused before it is touched, and earlier tensors keep their contents', async () => {
    const bench = await Bench.open();
    const kept = bench.tensor([1, 2, 3]);
    const available = native().cpu().availableBytes;
    await collect();
    const before = native().counters();
    for (const bytes of [available * 2, 2 ** 50, Number.MAX_SAFE_INTEGER]) {
      const error = await failure(() => native().alloc(bench.device, bytes));
      expect(error).toEqual(code('OUT_OF_MEMORY'));
      expect(error.message).toMatch(new RegExp(`^alloc: bytes is ${bytes}, expected at most \\d+`));
    }
    expect(native().counters()).toEqual(before);
    expect(await bench.read(kept)).toEqual([1, 2, 3]);
    await bench.close();
  });

  test('counts what was allocated but not yet touched', async () => {
    const bench = await Bench.open();
    const most = native().cpu().availableBytes;
    const held: BufferHandle[] = [];
    const error = await failure(() => {
      for (let i = 0; i < 12; i++) held.push(native().alloc(bench.device, Math.floor(most / 5)));
    });
    expect(error).toEqual(code('OUT_OF_MEMORY'));
    expect(held.length).toBeGreaterThanOrEqual(3);
    expect(held.length).toBeLessThanOrEqual(5);
    await bench.close();
  });

  test.each([-1, 0.5, Number.NaN, Infinity, 2 ** 60, '8', null])('alloc(%s) is refused', async (bytes) => {
    const bench = await Bench.open();
    expect(await failure(() => native().alloc(bench.device, bytes as number))).toEqual(code('ARGUMENT'));
    await bench.close();
  });
});

describe('the counters of a device', () => {
  test('are exact', async () => {
    const bench = await Bench.open();
    const a = native().alloc(bench.device, 1000);
    const b = native().alloc(bench.device, 24);
    native().free(a);
    const start = native().memory(bench.device);
    expect(start).toMatchObject({ currentBytes: 24, peakBytes: 1024, allocations: 1 });
    await new Promise((done) => setTimeout(done, 20));
    const end = native().memory(bench.device);
    expect(end.byteSeconds - start.byteSeconds).toBeCloseTo(24 * (end.seconds - start.seconds), 9);
    native().free(b);
    expect(native().memory(bench.device).currentBytes).toBe(0);
    await bench.close();
  });
});

test('error codes are those of src/errors.ts', () => {
  expect(native().codes.slice(1)).toEqual([...codes]);
});

test('nothing() takes anything and gives nothing', () => {
  expect((native().nothing as (...given: unknown[]) => unknown)(1, {}, null)).toBeUndefined();
});

test('a plan outlives its handle while its function can be called', async () => {
  const bench = await Bench.open();
  const args = { x: bench.tensor([3], [1, 1]), w: bench.tensor([5], [1, 1]), y: bench.tensor([0], [1, 1]) };
  const enqueue = (() => native().enqueueFunction(bench.plan(args) as PlanHandle))();
  await collect();
  enqueue();
  expect(await bench.read(args.y)).toEqual([15]);
  await bench.close();
});
