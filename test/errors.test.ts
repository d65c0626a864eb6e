// Bad input: a typed error that names the argument, what came and what was expected, before anything is launched; nothing leaks.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { codes, type Device, gemm, KernwattError, openDevice, type Tensor } from '../src/index.js';
import { native } from '../src/native.js';

let device: Device;
let other: Device;
let baseline: ReturnType<ReturnType<typeof native>['counters']>;
const made: Tensor[] = [];

/** A tensor that this test disposes of. */
const tensor = (shape: readonly number[], dtype: Parameters<Device['empty']>[1] = 'f32', on = device) => {
  const t = on.zeros(shape, dtype);
  made.push(t);
  return t;
};
const keep = (t: Tensor) => {
  made.push(t);
  return t;
};

beforeAll(async () => {
  device = await openDevice('cpu');
  other = await openDevice('cpu');
});
afterAll(() => Promise.all([device.close(), other.close()]));
beforeEach(() => {
  baseline = native().counters();
});
afterEach(async () => {
  for (const t of made.splice(0)) t.dispose();
  await device.stream.sync();
  const { buffers, plans } = native().counters();
  expect({ buffers, plans }).toEqual({ buffers: baseline.buffers, plans: baseline.plans });
});

const refused = (code: string, message: string) =>
  expect.objectContaining({ name: 'KernwattError', code: `ERR_KERNWATT_${code}`, message });
/** Untyped arguments, as JavaScript would pass them. */
const call = (args: unknown, options?: unknown) => () => gemm.run(args as Record<string, unknown>, options as object);

describe('gemm refuses', () => {
  const xw = () => ({ x: tensor([4, 5]), w: tensor([3, 5]) });

  test('sizes that differ, naming both', () => {
    expect(call({ x: tensor([4, 5]), w: tensor([3, 6]) })).toThrow(refused('SHAPE', 'gemm: w has k 6, but x has 5'));
    expect(call({ ...xw(), bias: tensor([4]) })).toThrow(refused('SHAPE', 'gemm: bias has rowsW 4, but w has 3'));
    expect(call({ ...xw(), c: tensor([3, 3]) })).toThrow(refused('SHAPE', 'gemm: c has m 3, but x has 4'));
    expect(call({ ...xw(), residual: tensor([4, 4]) })).toThrow(refused('SHAPE', 'gemm: residual has n 4, expected 3'));
    expect(call({ ...xw(), y: tensor([5, 3]) })).toThrow(refused('SHAPE', 'gemm: y has m 5, but x has 4'));
    expect(call({ ...xw(), y: tensor([4, 6]) })).toThrow(refused('SHAPE', 'gemm: y has n 6, expected 3'));
    expect(call({ x: tensor([5, 4]), w: tensor([3, 4]), transX: true })).toThrow(
      refused('SHAPE', 'gemm: w has k 4, but x has 5'),
    );
  });

  test('batches that do not broadcast', () => {
    const x = tensor([2, 4, 5]);
    expect(call({ x, w: tensor([3, 3, 5]) })).toThrow(refused('SHAPE', 'gemm: w has batch 3, but x has 2'));
    expect(call({ x, w: tensor([3, 5]), y: tensor([1, 4, 3]) })).toThrow(
      refused('SHAPE', 'gemm: y has batch 1, but x has 2'),
    );
    expect(call({ x, w: tensor([3, 5]), y: tensor([4, 3]) })).toThrow(
      refused('SHAPE', 'gemm: y is [4, 3], expected batch 2 before it'),
    );
    expect(call({ ...xw(), y: tensor([2, 4, 3]) })).toThrow(refused('SHAPE', 'gemm: y has batch 2, expected 1'));
  });

  test('wrong ranks, with the shape it wants under the flags given', () => {
    expect(call({ x: tensor([3, 4, 5, 6]), w: tensor([3, 6]) })).toThrow(
      refused('SHAPE', 'gemm: x is [3, 4, 5, 6], expected [batch?, m, k]'),
    );
    expect(call({ x: tensor([3]), w: tensor([3, 6]), transX: true })).toThrow(
      refused('SHAPE', 'gemm: x is [3], expected [batch?, k, m]'),
    );
    expect(call({ ...xw(), bias: tensor([1, 3]) })).toThrow(refused('SHAPE', 'gemm: bias is [1, 3], expected [rowsW]'));
  });

  test('element types', () => {
    expect(call({ x: tensor([4, 5], 'i32'), w: tensor([3, 5]) })).toThrow(
      refused('DTYPE', 'gemm: x is i32, expected f32, bf16 or f16'),
    );
    expect(call({ x: tensor([4, 5]), w: tensor([3, 5], 'bf16') })).toThrow(
      refused('DTYPE', 'gemm: w is bf16, but x is f32'),
    );
    expect(call(xw(), { dtype: 'i8' })).toThrow(
      refused('DTYPE', 'gemm: options.dtype is i8, expected f32, bf16 or f16 for y'),
    );
    expect(call({ ...xw(), y: tensor([4, 3], 'f16') }, { dtype: 'bf16' })).toThrow(
      refused('DTYPE', 'gemm: y is f16, but options.dtype is bf16'),
    );
  });

  test('a gated activation over an odd number of rows', () => {
    expect(call({ ...xw(), activation: 'swiglu' })).toThrow(
      refused('SHAPE', 'gemm: w has rowsW 3, expected an even number with activation swiglu'),
    );
  });

  test('parameters of the wrong kind or not finite', () => {
    const number = 'expected a finite number in the range of f32';
    for (const alpha of [Number.NaN, Number.POSITIVE_INFINITY, 1e300])
      expect(call({ ...xw(), alpha })).toThrow(refused('ARGUMENT', `gemm: alpha is ${alpha}, ${number}`));
    expect(call({ ...xw(), alpha: '2' })).toThrow(refused('ARGUMENT', `gemm: alpha is "2", ${number}`));
    expect(call({ ...xw(), alpha: null })).toThrow(refused('ARGUMENT', `gemm: alpha is null, ${number}`));
    expect(call({ ...xw(), transW: 1 })).toThrow(refused('ARGUMENT', 'gemm: transW is 1, expected true or false'));
    expect(call({ ...xw(), activation: 'swish' })).toThrow(
      refused(
        'ARGUMENT',
        'gemm: activation is "swish", expected one of none, relu, gelu_erf, gelu_tanh, silu, swiglu, geglu_erf, geglu_tanh',
      ),
    );
    expect(call({ ...xw(), beta: 2 })).toThrow(refused('ARGUMENT', 'gemm: beta is 2, but c is missing'));
  });

  test('what is missing, unknown or not a tensor', () => {
    const { x, w } = xw();
    expect(call({ x })).toThrow(refused('ARGUMENT', 'gemm: w is missing, expected a tensor'));
    expect(call({ x, w, biass: 1 })).toThrow(refused('ARGUMENT', 'gemm: biass is not an argument; did you mean bias?'));
    expect(call({ x, w, transx: true })).toThrow(
      refused('ARGUMENT', 'gemm: transx is not an argument; did you mean transX?'),
    );
    expect(call({ x, w, quantisation: 1 })).toThrow(
      refused(
        'ARGUMENT',
        'gemm: quantisation is not an argument; expected x, w, c, bias, residual, y, alpha, beta, activation, transX, transW, batchInvariant',
      ),
    );
    expect(call({ x: new Float32Array(20), w })).toThrow(
      refused('ARGUMENT', 'gemm: x is a Float32Array, expected a tensor; device.tensor() makes one'),
    );
    expect(call({ x: null, w })).toThrow(
      refused('ARGUMENT', 'gemm: x is null, expected a tensor; device.tensor() makes one'),
    );
    expect(call(undefined)).toThrow(KernwattError);
    expect(call({ x, w }, null)).toThrow(
      refused('ARGUMENT', 'gemm: options are null, expected { stream, backend, dtype, configuration }'),
    );
    expect(call({ x, w }, { strem: 1 })).toThrow(
      refused('ARGUMENT', 'gemm: strem is not an option, expected stream, backend, dtype, configuration'),
    );
  });

  test('tensors and streams of other devices', () => {
    const { x, w } = xw();
    const far = tensor([3, 5], 'f32', other);
    expect(call({ x, w: far })).toThrow(
      refused('ARGUMENT', 'gemm: w is on cpu as opened another time than for x, expected one device'),
    );
    expect(call({ x, w }, { stream: other.stream })).toThrow(
      refused('ARGUMENT', 'gemm: stream is on cpu, expected cpu as the tensors'),
    );
    expect(call({ x, w }, { backend: 'cuda' })).toThrow(
      refused('ARGUMENT', 'gemm: backend is cuda, expected cpu or ref on cpu'),
    );
  });

  test('a strided last dimension', () => {
    const x = keep(tensor([5, 8]).slice([null, [0, 8, 2]]));
    expect(call({ x, w: tensor([3, 4]) })).toThrow(
      refused('ARGUMENT', 'gemm: x has stride 2 in its last dimension, expected 1; use contiguous()'),
    );
    const turned = keep(tensor([4, 5]).permute([1, 0]));
    expect(call({ x: turned, w: tensor([3, 4]) })).toThrow(
      refused('ARGUMENT', 'gemm: x has stride 5 in its last dimension, expected 1; use contiguous()'),
    );
  });

  test('outputs that overlap inputs, except exactly in place', () => {
    const big = tensor([8, 8]);
    const x = keep(big.slice([[0, 4]]));
    const w = tensor([8, 8]);
    expect(call({ x, w, y: x })).toThrow(
      refused('ARGUMENT', 'gemm: y overlaps x in memory, expected separate tensors'),
    );
    expect(call({ x, w, y: keep(big.slice([[3, 7]])) })).toThrow(
      refused('ARGUMENT', 'gemm: y overlaps x in memory, expected separate tensors'),
    );
    const c = tensor([5, 8]);
    const head = keep(c.slice([[0, 4]]));
    expect(call({ x, w, c: head, y: keep(c.slice([[1, 5]])) })).toThrow(
      refused('ARGUMENT', 'gemm: y overlaps c in memory, expected separate tensors or exactly the same view as c'),
    );
    expect(call({ x, w, c: head, y: head })).not.toThrow();
    expect(call({ x, w, residual: head, y: keep(head.view([4, 8])) })).not.toThrow();
    expect(call({ x, w, y: keep(big.slice([[4, 8]])) })).not.toThrow();
    const bytes = new Float32Array(64);
    const left = keep(device.fromExternal(bytes.subarray(0, 32), [4, 8]));
    const right = keep(device.fromExternal(bytes.subarray(16, 48), [4, 8]));
    expect(call({ x: left, w, y: right })).toThrow(
      refused('ARGUMENT', 'gemm: y overlaps x in memory, expected separate tensors'),
    );
  });

  test('an output that repeats its own elements', () => {
    const y = keep(tensor([1, 3]).expand([4, 3]));
    expect(call({ ...xw(), y })).toThrow(
      refused('ARGUMENT', 'gemm: y repeats elements (strides [0, 1]), expected one without stride 0'),
    );
  });

  test('a disposed tensor', () => {
    const { x, w } = xw();
    w.dispose();
    expect(call({ x, w })).toThrow(refused('DISPOSED', 'gemm: w is disposed, expected a live tensor'));
  });

  test('results of another stream that nobody waited for', async () => {
    const stream = device.createStream();
    const x = keep(device.random([4, 5], 'f32', { stream }));
    expect(call({ x, w: tensor([3, 5]) })).toThrow(
      refused(
        'ARGUMENT',
        'gemm: x was written on another stream that has not been waited for, expected `await otherStream.mark()` first',
      ),
    );
    await stream.mark();
    expect(() => keep(gemm({ x, w: tensor([3, 5]) }).y)).not.toThrow();
    await stream.close();
  });
});

describe('running out of memory', () => {
  test('is an error of its own and leaves everything else intact', async () => {
    const x = keep(device.full([2, 2], 3));
    expect(() => device.empty([2 ** 30, 2 ** 20])).toThrow(
      expect.objectContaining({ code: 'ERR_KERNWATT_OUT_OF_MEMORY' }),
    );
    const row = keep(tensor([1, 1]).expand([2 ** 20, 1]));
    const column = keep(tensor([1, 1]).expand([2 ** 20, 1]));
    expect(call({ x: row, w: column })).toThrow(expect.objectContaining({ code: 'ERR_KERNWATT_OUT_OF_MEMORY' }));
    expect(await x.read()).toEqual(Float32Array.of(3, 3, 3, 3));
  });

  test('more elements than can be addressed is a question of shape', () => {
    expect(() => device.empty([2 ** 40, 2 ** 40])).toThrow(
      refused('SHAPE', 'empty: shape is [1099511627776, 1099511627776] of f32, expected at most 2^53 - 1 bytes'),
    );
    const wide = keep(tensor([1, 1]).expand([2 ** 30, 1]));
    expect(call({ x: wide, w: wide })).toThrow(
      refused('SHAPE', 'gemm: shape is [1073741824, 1073741824] of f32, expected at most 2^53 - 1 bytes'),
    );
  });
});

test('every code has its own public form', () => {
  for (const code of codes) expect(new KernwattError(code, 'x').code).toBe(`ERR_KERNWATT_${code}`);
  expect(new KernwattError('SHAPE', 'x')).toBeInstanceOf(Error);
  expect(new KernwattError('SHAPE', 'x', { cause: 1 }).cause).toBe(1);
});
