// How many copies keep operands cold, and that copies are faithful.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, gemm, openDevice } from '../../src/index.js';
import { Rotation, rotationSize, spanBytes } from '../../src/measure/rotation.js';
import { operatorOf } from '../../src/measure/subject.js';

const MiB = 2 ** 20;

describe('number of copies', () => {
  test('five times the cache where memory allows', () => {
    const size = rotationSize(10 * MiB, 10 * MiB, 32 * MiB, 2 ** 40);
    expect(size).toMatchObject({ copies: 17, cold: true });
  });

  test('what memory allows, and cold only from twice the cache on', () => {
    expect(rotationSize(10 * MiB, 10 * MiB, 480 * MiB, 1024 * MiB)).toMatchObject({ copies: 103, cold: true });
    expect(rotationSize(10 * MiB, 10 * MiB, 480 * MiB, 900 * MiB)).toMatchObject({ copies: 91, cold: false });
    // Gaps between rows cost memory but are not read.
    expect(rotationSize(10 * MiB, 40 * MiB, 480 * MiB, 1024 * MiB)).toMatchObject({ copies: 26, cold: false });
  });

  test('no memory, no operands or an unknown cache: the one there is', () => {
    expect(rotationSize(MiB, MiB, 32 * MiB, 0)).toMatchObject({ copies: 1, cold: false });
    expect(rotationSize(0, 0, 32 * MiB, 2 ** 40)).toMatchObject({ copies: 1, cold: false });
    expect(rotationSize(MiB, MiB, null, 2 ** 40)).toMatchObject({ copies: 1, cold: false });
    // An operand larger than twice the cache is cold all by itself.
    expect(rotationSize(100 * MiB, 100 * MiB, 32 * MiB, 0)).toMatchObject({ copies: 1, cold: true });
  });

  test('tiny operands are not copied without end', () => {
    expect(rotationSize(64, 64, 480 * MiB, 2 ** 40)).toMatchObject({ copies: 4096, cold: false });
  });
});

describe('copies', () => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice('cpu');
  });
  afterAll(() => device.close());

  test('keep contents, strides, sharing and alignment, and give their memory back', async () => {
    // A device of its own: tensors that other tests let go of are collected at any time.
    await using device = await openDevice('cpu', { threads: 2 });
    const packed = device.random([40, 48], 'f32', { seed: 3 });
    // Two operands cut out of one tensor, and an output over another.
    const x = packed.slice([
      [1, 9],
      [0, 32],
    ]);
    const w = packed.slice([
      [9, 25],
      [0, 32],
    ]);
    const c = device.random([8, 16], 'f32', { seed: 4 });
    const plan = gemm.bind({ x, w, c, y: c });
    const before = device.memory().currentBytes;
    const rotation = await Rotation.create(plan, operatorOf(plan), {
      copies: 4,
      bytes: 1,
      spanBytes: spanBytes(plan),
      cold: true,
    });
    expect(rotation.plans).toHaveLength(4);
    const copy = rotation.plans[2]!;
    expect(copy.args.x!.storage).toBe(copy.args.w!.storage);
    expect(copy.args.c!.storage).toBe(copy.args.y!.storage);
    expect(copy.args.x!.storage).not.toBe(x.storage);
    for (const name of ['x', 'w', 'c']) {
      expect(copy.args[name]!.stride).toEqual(plan.args[name]!.stride);
      expect(await copy.args[name]!.read()).toEqual(await plan.args[name]!.read());
    }
    const span = copy.args.x!.nativeView.offset - copy.args.w!.nativeView.offset;
    expect(span).toBe(x.nativeView.offset - w.nativeView.offset);
    expect(copy.params).toEqual(plan.params);
    await Promise.all(rotation.plans.map((one) => one.run()));
    expect(await copy.outputs.y!.hash()).toBe(await plan.outputs.y.hash());
    expect(device.memory().currentBytes).toBe(before + rotation.extraBytes);
    rotation.dispose();
    await device.stream.mark();
    expect(device.memory().currentBytes).toBe(before);
    for (const one of [plan, x, w, c, packed]) one.dispose();
  });

  test('take turns without a break between rounds', async () => {
    const x = device.full([1, 4], 1);
    const w = device.full([2, 4], 1);
    const plan = gemm.bind({ x, w });
    const rotation = await Rotation.create(plan, operatorOf(plan), {
      copies: 5,
      bytes: 1,
      spanBytes: spanBytes(plan),
      cold: true,
    });
    const [p0, p1, p2, p3, p4] = rotation.plans;
    expect(rotation.take(7)).toEqual([p0, p1, p2, p3, p4]);
    expect(rotation.take(1)).toEqual([p2, p3, p4, p0, p1]);
    expect(rotation.next()).toBe(p3);
    expect(rotation.take(0)[0]).toBe(p4);
    rotation.dispose();
    plan.dispose();
  });
});
