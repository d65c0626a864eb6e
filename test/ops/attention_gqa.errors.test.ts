// attention_gqa refuses bad input: sizes, heads, broadcasting, combinations, lengths. Before anything is launched where the host
// can know, and from the stream where only the device does; nothing leaks.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { attentionGqa, type Device, type DType, openDevice, type Tensor } from '../../src/index.js';
import { native } from '../../src/native.js';

let device: Device;
let baseline: ReturnType<ReturnType<typeof native>['counters']>;
const made: Tensor[] = [];

const keep = (t: Tensor) => {
  made.push(t);
  return t;
};
const zeros = (shape: number[], dtype: DType = 'f32') => keep(device.zeros(shape, dtype));
const i32 = (...values: number[]) => keep(device.tensor(Int32Array.from(values)));

beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());
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
  expect.objectContaining({
    name: 'KernwattError',
    code: `ERR_KERNWATT_${code}`,
    message: `attention_gqa: ${message}`,
  });
/** A good call (2 batches of 4 queries and 5 keys, 8 heads of 2, 16 wide) with other arguments. */
const call =
  (args: Record<string, unknown>, options = {}) =>
  () => {
    const good = { q: [2, 4, 8, 16], k: [2, 5, 2, 16], v: [2, 5, 2, 16] };
    const tensors = Object.fromEntries(Object.entries(good).map(([name, shape]) => [name, zeros(shape)]));
    for (const t of Object.values(attentionGqa.run({ ...tensors, ...args }, options))) keep(t);
  };

test('a good call is not refused', () => {
  expect(call({})).not.toThrow();
  expect(call({ bias: zeros([1, 8, 4, 5]), mask: zeros([2, 1, 4, 5], 'u8'), lensKv: i32(5, 0) })).not.toThrow();
});

describe('refused before the launch:', () => {
  test('sizes that differ, naming both', () => {
    expect(call({ v: zeros([2, 6, 2, 16]) })).toThrow(refused('SHAPE', 'v has lenKv 6, but k has 5'));
    expect(call({ k: zeros([2, 5, 2, 12]) })).toThrow(refused('SHAPE', 'k has dim 12, but q has 16'));
    expect(call({ k: zeros([3, 5, 2, 16]) })).toThrow(refused('SHAPE', 'k has batch 3, but q has 2'));
    expect(call({ k: zeros([1, 5, 2, 16]) })).toThrow(refused('SHAPE', 'k has batch 1, but q has 2'));
    expect(call({ v: zeros([2, 5, 4, 16]) })).toThrow(refused('SHAPE', 'v has headsKv 4, but k has 2'));
    expect(call({ alibi: zeros([2]) })).toThrow(refused('SHAPE', 'alibi has headsQ 2, but q has 8'));
    expect(call({ lensQ: i32(4) })).toThrow(refused('SHAPE', 'lensQ has batch 1, but q has 2'));
    expect(call({ y: zeros([2, 4, 8, 12]) })).toThrow(refused('SHAPE', 'y has dimV 12, but v has 16'));
    expect(call({ lse: zeros([2, 4, 8]) })).toThrow(refused('SHAPE', 'lse has headsQ 4, but q has 8'));
  });

  test('ranks, with the shape wanted', () => {
    expect(call({ q: zeros([4, 8, 16]) })).toThrow(
      refused('SHAPE', 'q is [4, 8, 16], expected [batch, lenQ, headsQ, dim]'),
    );
    expect(call({ bias: zeros([4, 5]) })).toThrow(
      refused('SHAPE', 'bias is [4, 5], expected [batch or 1, headsQ or 1, lenQ, lenKv]'),
    );
    const cu = { cuQ: zeros([0], 'i32'), cuKv: i32(0) };
    expect(call(cu)).toThrow(refused('SHAPE', 'cuQ is [0], expected [sequences + 1]'));
  });

  test('heads that do not divide', () => {
    const heads = (n: number) => ({ k: zeros([2, 5, n, 16]), v: zeros([2, 5, n, 16]) });
    expect(call(heads(3))).toThrow(refused('SHAPE', 'headsKv 3 does not divide headsQ 8'));
    expect(call(heads(16))).toThrow(refused('SHAPE', 'headsKv 16 does not divide headsQ 8'));
    expect(call(heads(0))).toThrow(refused('SHAPE', 'headsKv 0 does not divide headsQ 8'));
  });

  test('head sizes that no kernel has, naming those that exist', () => {
    const exist = 'expected 1 to 256: kernels exist for 32, 64, 96, 128, 192, 256, and pad other sizes with zeros';
    expect(call({ q: zeros([2, 4, 8, 320]), k: zeros([2, 5, 2, 320]) })).toThrow(
      refused('UNSUPPORTED', `dim is 320, ${exist}`),
    );
    expect(call({ q: zeros([2, 4, 8, 0]), k: zeros([2, 5, 2, 0]) })).toThrow(
      refused('UNSUPPORTED', `dim is 0, ${exist}`),
    );
    expect(call({ v: zeros([2, 5, 2, 257]) })).toThrow(refused('UNSUPPORTED', `dimV is 257, ${exist}`));
  });

  test('a bias or mask that does not broadcast, naming the dimension', () => {
    expect(call({ bias: zeros([2, 3, 4, 5]) })).toThrow(
      refused('SHAPE', 'bias has headsQ 3, but q has 8; expected 8 or 1'),
    );
    expect(call({ bias: zeros([4, 8, 4, 5]) })).toThrow(
      refused('SHAPE', 'bias has batch 4, but q has 2; expected 2 or 1'),
    );
    expect(call({ bias: zeros([1, 1, 1, 5]) })).toThrow(refused('SHAPE', 'bias has lenQ 1, but q has 4'));
    expect(call({ mask: zeros([1, 2, 4, 5], 'u8') })).toThrow(
      refused('SHAPE', 'mask has headsQ 2, but q has 8; expected 8 or 1'),
    );
  });

  test('a mask of the wrong number of blocks', () => {
    const mask = zeros([1, 1, 4, 5], 'u8');
    expect(call({ mask, maskBlockQ: 3 })).toThrow(refused('SHAPE', 'mask has blocksQ 4, expected 2'));
    expect(call({ mask, maskBlockKv: 2 })).toThrow(refused('SHAPE', 'mask has blocksKv 5, expected 3'));
    expect(call({ mask, maskBlockQ: 4 })).toThrow(refused('SHAPE', 'mask has blocksQ 4, expected 1'));
    expect(call({ maskBlockQ: 16 })).toThrow(refused('ARGUMENT', 'maskBlockQ is 16, but mask is missing'));
    expect(call({ mask, maskBlockQ: 0 })).toThrow(
      refused('ARGUMENT', 'maskBlockQ is 0, expected a whole number from 1 to 2147483647'),
    );
  });

  test('element types', () => {
    expect(call({ k: zeros([2, 5, 2, 16], 'bf16') })).toThrow(refused('DTYPE', 'k is bf16, but q is f32'));
    expect(call({ mask: zeros([1, 1, 4, 5]) })).toThrow(refused('DTYPE', 'mask is f32, expected u8'));
    expect(call({ lensKv: zeros([2]) })).toThrow(refused('DTYPE', 'lensKv is f32, expected i32'));
    expect(call({ sink: zeros([8], 'bf16') })).toThrow(refused('DTYPE', 'sink is bf16, expected f32'));
    expect(call({ lse: zeros([2, 8, 4], 'bf16') })).toThrow(refused('DTYPE', 'lse is bf16, expected f32'));
  });

  test('bounds and factors out of range', () => {
    const range = 'expected a whole number from -1 to 2147483647';
    expect(call({ windowLeft: -2 })).toThrow(refused('ARGUMENT', `windowLeft is -2, ${range}`));
    expect(call({ windowRight: 1.5 })).toThrow(refused('ARGUMENT', `windowRight is 1.5, ${range}`));
    expect(call({ softcap: -1 })).toThrow(refused('ARGUMENT', 'softcap is -1, expected 0 or more'));
    expect(call({ scale: Number.NaN })).toThrow(
      refused('ARGUMENT', 'scale is NaN, expected a finite number in the range of f32'),
    );
  });

  test('lengths out of range, naming value and row', () => {
    expect(call({ lensKv: i32(5, 9) })).toThrow(refused('INDEX', 'lensKv[1] is 9, expected 0 to 5'));
    expect(call({ lensQ: i32(-1, 4) })).toThrow(refused('INDEX', 'lensQ[0] is -1, expected 0 to 4'));
    const external = keep(device.fromExternal(Int32Array.of(3, 6)));
    expect(call({ lensKv: external })).toThrow(refused('INDEX', 'lensKv[1] is 6, expected 0 to 5'));
    const four = i32(9, 5, 4, 6);
    expect(call({ lensKv: keep(four.slice([[1, 3]])) })).not.toThrow();
    expect(call({ lensKv: keep(four.slice([[2, 4]])) })).toThrow(refused('INDEX', 'lensKv[1] is 6, expected 0 to 5'));
  });

  test('offsets that decrease or leave the tensor, and what does not go with them', () => {
    const packed = (cuQ: number[], cuKv: number[], more = {}) =>
      call({
        q: zeros([1, 4, 8, 16]),
        k: zeros([1, 5, 2, 16]),
        v: zeros([1, 5, 2, 16]),
        cuQ: i32(...cuQ),
        cuKv: i32(...cuKv),
        ...more,
      });
    expect(packed([0, 2, 4], [0, 2, 5])).not.toThrow();
    expect(packed([0, 3, 2], [0, 2, 5])).toThrow(refused('INDEX', 'cuQ[2] is 2, expected 3 to 4'));
    expect(packed([0, 2, 4], [0, 2, 6])).toThrow(refused('INDEX', 'cuKv[2] is 6, expected 2 to 5'));
    expect(packed([0, 2, 4], [0, 5])).toThrow(refused('SHAPE', 'cuKv has sequences 1, but cuQ has 2'));
    expect(packed([0, 4], [0, 5], { lensKv: i32(5) })).toThrow(
      refused('ARGUMENT', 'lensKv is given with cuQ, expected lengths or packed sequences'),
    );
    expect(packed([0, 4], [0, 5], { cuKv: undefined })).toThrow(
      refused('ARGUMENT', 'cuKv is missing, expected with cuQ'),
    );
    expect(packed([0, 4], [0, 5], { cuQ: undefined })).toThrow(
      refused('ARGUMENT', 'cuQ is missing, expected with cuKv'),
    );
    expect(call({ cuQ: i32(0, 4), cuKv: i32(0, 5) })).toThrow(refused('SHAPE', 'q has batch 2, expected 1 with cuQ'));
  });

  test('outputs that overlap inputs or each other', () => {
    const q = zeros([2, 4, 8, 16]);
    expect(call({ q, y: q })).toThrow(refused('ARGUMENT', 'y overlaps q in memory, expected separate tensors'));
    const memory = zeros([1024]);
    const part = (start: number, shape: number[]) => {
      const end = start + shape.reduce((n, size) => n * size, 1);
      return keep(keep(memory.slice([[start, end]])).view(shape));
    };
    expect(call({ k: part(0, [2, 5, 2, 16]), y: part(0, [2, 4, 8, 16]) })).toThrow(
      refused('ARGUMENT', 'y overlaps k in memory, expected separate tensors'),
    );
    expect(call({ y: part(0, [2, 4, 8, 16]), lse: part(960, [2, 8, 4]) })).toThrow(
      refused('ARGUMENT', 'lse overlaps y in memory, expected separate tensors'),
    );
    expect(call({ k: part(0, [2, 5, 2, 16]), lse: part(320, [2, 8, 4]) })).not.toThrow();
    const y = keep(zeros([2, 4, 1, 16]).expand([2, 4, 8, 16]));
    expect(call({ y })).toThrow(
      refused('ARGUMENT', 'y repeats elements (strides [64, 16, 0, 1]), expected one without stride 0'),
    );
  });

  test('strided last dimensions', () => {
    const q = keep(zeros([2, 4, 8, 32]).slice([null, null, null, [0, 32, 2]]));
    expect(call({ q })).toThrow(
      refused('ARGUMENT', 'q has stride 2 in its last dimension, expected 1; use contiguous()'),
    );
  });
});

describe('lengths that only the device knows', () => {
  /** The same numbers, written by queued work. */
  const queued = (...values: number[]) => keep(device.empty([values.length], 'i32').copyFrom(i32(...values)));

  test.each(['cpu', 'ref'] as const)('are refused by %s from the stream, naming value and row', async (backend) => {
    expect(call({ lensKv: queued(5, 9) }, { backend })).not.toThrow();
    await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'lens_kv[1] is 9, expected 0 to 5'));
    expect(call({ lensQ: queued(4, -3) }, { backend })).not.toThrow();
    await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'lens_q[1] is -3, expected 0 to 4'));
    await expect(device.stream.mark()).resolves.toBeUndefined();
  });

  test('overwritten since the host wrote them are not what the host remembers', async () => {
    const lens = i32(5, 9);
    lens.copyFrom(i32(5, 4));
    expect(call({ lensKv: lens })).not.toThrow();
    await device.stream.mark();
    const rows = i32(5, 4);
    keep(rows.slice([[1, 2]])).write([9]);
    expect(call({ lensKv: rows })).not.toThrow();
    await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'lens_kv[1] is 9, expected 0 to 5'));
  });

  test('a plan bound to others is checked again, and stays as it was when they are refused', async () => {
    const [q, k] = [zeros([2, 4, 8, 16]), zeros([2, 5, 2, 16])];
    using plan = attentionGqa.bind({ q, k, v: zeros([2, 5, 2, 16]), lensKv: i32(5, 0) });
    for (const t of Object.values(plan.outputs)) keep(t);
    expect(() => plan.rebind({ lensKv: i32(1, 6) })).toThrow(refused('INDEX', 'lensKv[1] is 6, expected 0 to 5'));
    const { lse } = await plan.run();
    const rows = (t: Float32Array) => [t[0], t[32]];
    expect(rows((await lse.read()) as Float32Array)).toEqual([expect.closeTo(Math.log(5)), Number.NEGATIVE_INFINITY]);
    plan.rebind({ lensKv: i32(1, 3) });
    await plan.run();
    expect(rows((await lse.read()) as Float32Array)).toEqual([0, expect.closeTo(Math.log(3))]);
  });
});
