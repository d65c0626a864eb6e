// nsa_compress: by hand, against what gathering and averaging give, windows past an end, threads, and what it refuses.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, type Device, nsaCompress, openDevice, type Tensor } from '../../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test('a worked example: two windows of four, two apart', async () => {
    const x = device.tensor([1, 2, 3, 6, 5, 10], [1, 6, 1, 1]);
    const position = device.tensor([4, 0, 0, 0], [4, 1, 1]);
    const params = { block: 4, stride: 2 };
    expect(await list(nsaCompress({ x, ...params }, { backend }).y)).toEqual([3, 6]);
    expect(await list(nsaCompress({ x, position, ...params }, { backend }).y)).toEqual([4, 7]);
  });

  test('windows past a length are 0, whatever lies there', async () => {
    const x = device.tensor([1, 2, 3, Number.NaN, 5, 6, 7, 8], [2, 4, 1, 1]);
    const lens = device.tensor(Int32Array.of(3, 4), [2]);
    const { y } = nsaCompress({ x, lens, block: 2, stride: 1 }, { backend });
    expect(await list(y)).toEqual([1.5, 2.5, 0, 5.5, 6.5, 7.5]);
  });

  test('a sequence shorter than a window has none', () => {
    expect(nsaCompress({ x: device.zeros([3, 31, 2, 8]) }, { backend }).y.shape).toEqual([3, 0, 2, 8]);
  });
});

test('a window of one token is the token, whatever its type, and of equal tokens their value', () =>
  fc.assert(
    fc.asyncProperty(
      fc.constantFrom('f32', 'bf16', 'f16'),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 0, max: 1e6 }),
      async (dtype, stride, seed) => {
        const x = device.random([2, 9, 3, 20], dtype, { seed });
        const one = nsaCompress({ x, block: 1, stride: 1 });
        expect(await list(one.y)).toEqual(await list(x));
        const same = device.full([1, 17, 2, 5], 0.75, dtype);
        const { y } = nsaCompress({ x: same, block: 8, stride });
        expect(await list(y)).toEqual(new Array((Math.floor(9 / stride) + 1) * 10).fill(0.75));
      },
    ),
    { numRuns: 20 },
  ));

test('results are the same for any number of threads', async () => {
  await using one = await openDevice('cpu', { threads: 1 });
  const run = (on: Device) => {
    const x = on.random([2, 700, 4, 96], 'bf16', { seed: 5 });
    return nsaCompress({ x, position: on.random([32, 1, 96], 'f32', { seed: 6 }) }).y.read({ raw: true });
  };
  expect(await run(device)).toEqual(await run(one));
});

describe('refused before the launch:', () => {
  const call = (args: Record<string, unknown>) => () => nsaCompress.run({ x: device.zeros([2, 64, 3, 8]), ...args });
  const refused = (code: string, message: string) =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `nsa_compress: ${message}` });

  test('parameters and sizes that do not fit', () => {
    expect(call({})).not.toThrow();
    expect(call({ stride: 33 })).toThrow(refused('ARGUMENT', 'stride is 33, expected at most block 32'));
    expect(call({ block: 0 })).toThrow(refused('ARGUMENT', 'block is 0, expected a whole number from 1 to 2147483647'));
    expect(call({ position: device.zeros([16, 3, 8]) })).toThrow(
      refused('SHAPE', 'position has window 16, expected 32'),
    );
    expect(call({ y: device.zeros([2, 2, 3, 8]) })).toThrow(refused('SHAPE', 'y has blocks 2, expected 3'));
    expect(call({ lens: device.tensor(Int32Array.of(64, 65), [2]) })).toThrow(
      refused('INDEX', 'lens[1] is 65, expected 0 to 64'),
    );
  });
});

test('work counts every element of a window, and the tokens that windows reach', () => {
  using plan = nsaCompress.bind({ x: device.zeros([2, 70, 3, 64], 'bf16') });
  expect(plan.work).toEqual({
    flops: 2 * 3 * 3 * 64 * 32,
    bytes: 2 * 2 * 3 * 64 * (64 + 3),
    tokens: 140,
    params: null,
  });
});
