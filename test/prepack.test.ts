// Prepacked operands: the same results, bytes that are counted once, and typed errors for all that a packed tensor is not.
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Device, gemm, gemmInt4, openDevice, type Tensor } from '../src/index.js';
import { measure } from '../src/later.js';
import { native } from '../src/native.js';

async function cpu(isa?: string): Promise<Device> {
  const device = await openDevice('cpu', isa ? { isa, threads: 2 } : { threads: 2 });
  onTestFinished(() => device.close());
  return device;
}

const whole = { distribution: 'integers', low: -3, high: 3 } as const;

async function same(a: Tensor, b: Tensor): Promise<void> {
  expect(await a.read()).toEqual(await b.read());
}

describe.each(native().cpu().isa)('on %s', (isa) => {
  test.each(['f32', 'bf16', 'f16'] as const)('%s: results of the plain weight, for one row and many', async (dtype) => {
    const device = await cpu(isa);
    const w = device.random([95, 77], dtype, { seed: 1, ...whole });
    const packed = gemm.prepack({ w });
    expect(packed.shape).toEqual([95, 77]);
    expect(packed.format).toMatch(/^panels of \d+ rows/);
    for (const m of [1, 5, 61]) {
      const x = device.random([m, 77], dtype, { seed: 2, ...whole });
      const args = { x, activation: 'relu' } as const;
      const { y } = gemm({ ...args, w }, { dtype: 'f32' });
      await same(gemm({ ...args, w: packed }, { dtype: 'f32' }).y, y);
      await same(gemm({ ...args, w: packed }, { dtype: 'f32', backend: 'ref' }).y, y);
    }
    const back = packed.unpack();
    expect(await back.read({ raw: true })).toEqual(await w.read({ raw: true }));
  });

  test('a transposed weight, batches, and a gate', async () => {
    const device = await cpu(isa);
    const w = device.random([3, 40, 64], 'f32', { seed: 1, ...whole });
    const x = device.random([3, 7, 40], 'f32', { seed: 2, ...whole });
    const packed = gemm.prepack({ w, transW: true });
    expect(packed.shape).toEqual([3, 64, 40]);
    await same(gemm({ x, w: packed }).y, gemm({ x, w, transW: true }).y);
    const gated = gemm({ x, w: packed, activation: 'swiglu' }).y;
    const plain = gemm({ x, w, transW: true, activation: 'swiglu' }).y;
    const [a, b] = [await gated.read(), await plain.read()];
    for (const [i, value] of a.entries()) expect(Math.abs(value - b[i]!)).toBeLessThanOrEqual(1e-5 * Math.abs(b[i]!));
    const narrow = gemm.prepack({ w: device.random([6, 5], 'f32') });
    expect(() => gemm({ x: device.random([2, 5], 'f32'), w: narrow, activation: 'swiglu' })).toThrow(
      /gemm: n is 3 with a gated activation, expected a multiple of \d+ for a prepacked w/,
    );
  });
});

describe.each(native().cpu().isa)('gemmInt4 on %s', (isa) => {
  test.each(['exact', 'int8'] as const)('%s: results of plain operands, whichever are packed', async (accuracy) => {
    const device = await cpu(isa);
    const plain = {
      w: device.tensor(
        Uint8Array.from({ length: (50 * 192) / 2 }, (_, i) => (i * 73) & 255),
        [50, 192],
        'u4',
      ),
      scales: device.tensor(
        Float32Array.from({ length: 3 * 50 }, (_, i) => 2 ** ((i % 5) - 3)),
        [3, 50],
        'bf16',
      ),
      zeros: device.tensor(
        Uint8Array.from({ length: (3 * 50) / 2 }, (_, i) => (i * 57) & 255),
        [3, 50],
        'u4',
      ),
    };
    const [w, scales, zeros] = [
      gemmInt4.prepack({ w: plain.w }),
      gemmInt4.prepack({ scales: plain.scales }),
      gemmInt4.prepack({ zeros: plain.zeros }),
    ];
    expect([w, scales, zeros].map((t) => [t.format, t.bytes])).toEqual([
      ['panels of 16 rows, runs of 8 along k (version 1)', (64 * 192) / 2],
      ['panels of 3 rows, runs of 16 along k (version 1)', 3 * 64 * 2],
      ['panels of 3 rows, runs of 16 along k (version 1)', (3 * 64) / 2],
    ]);
    for (const m of [1, 9, 40]) {
      // Whole numbers whose blocks hold their largest: exact in either class.
      const signs = Float32Array.from({ length: m * 192 }, (_, i) => (((i * 7919) >> 3) % 2 ? 127 : -127));
      const x = device.tensor(signs, [m, 192]);
      const { y } = gemmInt4({ x, ...plain, accuracy });
      for (const some of [{ w }, { scales, zeros }, { w, scales }, { w, scales, zeros }])
        for (const backend of ['cpu', 'ref'] as const)
          await same(gemmInt4({ x, ...plain, ...some, accuracy }, { backend }).y, y);
    }
    for (const [packed, name] of [
      [w, 'w'],
      [scales, 'scales'],
      [zeros, 'zeros'],
    ] as const)
      expect(await packed.unpack().read({ raw: true })).toEqual(await plain[name].read({ raw: true }));
  });
});

test('what gemmInt4 does not take packed says so', async () => {
  const device = await cpu();
  const w = device.tensor(new Int8Array(40 * 64).fill(3), [40, 64], 'u4');
  const scales = device.full([2, 40], 1, 'f32');
  const x = device.random([2, 64], 'f32');
  const packed = gemmInt4.prepack({ w });
  expect(() => gemmInt4({ x, w: packed, scales, activation: 'swiglu' })).toThrow(
    'gemm_int4: n is 20 with a gated activation, expected a multiple of 16 for prepacked operands',
  );
  const floats = gemm.prepack({ w: device.random([40, 64], 'f32') });
  expect(() => gemmInt4({ x: floats, w, scales })).toThrow(/gemm_int4: x is packed in panels of .* expected plain/);
  const odd = device.tensor(new Int8Array(2 * 41).fill(3), [2, 41], 'u4');
  expect(() => gemmInt4.prepack({ zeros: odd })).toThrow('zeros is u4 [2, 41] for cpu, which has no packed format');
  const other = gemmInt4.prepack({ scales: device.full([40, 2], 1, 'f32') });
  expect(() => gemmInt4({ x, w, scales: other })).toThrow(expect.objectContaining({ code: 'ERR_KERNWATT_SHAPE' }));
});

test('its bytes are counted, and replace those of the original on request', async () => {
  const device = await cpu();
  const w = device.random([4096, 1024], 'bf16');
  await device.stream.mark();
  const before = device.memory().currentBytes;
  const packed = gemm.prepack({ w }, { dispose: true });
  await device.stream.mark();
  expect(w.disposed).toBe(true);
  expect(packed.bytes).toBe(4096 * 1024 * 2);
  expect(Math.abs(device.memory().currentBytes - before)).toBeLessThan(64 << 10);
  const x = device.random([256, 1024], 'bf16');
  const plan = gemm.bind({ x, w: packed });
  expect(plan.explain()).toMatchObject({ path: 'panels', reason: expect.stringContaining('prepacked') });
  const operands = Object.values(plan.args).reduce((sum, tensor) => sum + tensor.bytes, 0);
  expect(plan.workspaceBytes).toBeLessThan(Math.max(0.05 * operands, 2 << 20));
});

test('plans are rebound to weights of the same format alone', async () => {
  const device = await cpu();
  const x = device.random([4, 64], 'f32', { seed: 3, ...whole });
  const [a, b] = [1, 2].map((seed) => device.random([32, 64], 'f32', { seed, ...whole })) as [Tensor, Tensor];
  const plan = gemm.bind({ x, w: gemm.prepack({ w: a }) });
  plan.rebind({ w: gemm.prepack({ w: b }) });
  await same((await plan.run()).y, gemm({ x, w: b }).y);
  expect(() => plan.rebind({ w: b })).toThrow(/gemm.rebind: w is plain, expected panels of .* as bound/);
  expect(() => plan.rebind({ w: gemm.prepack({ w: device.random([31, 64], 'f32') }) })).toThrow(
    /SHAPE|expected \[32, 64\]/,
  );
});

test('what a packed tensor cannot do says so', async () => {
  const device = await cpu();
  const packed = gemm.prepack({ w: device.random([32, 64], 'f32') });
  const refused = { code: 'ERR_KERNWATT_UNSUPPORTED', message: expect.stringContaining('is packed in panels of') };
  await expect(packed.read()).rejects.toMatchObject(refused);
  await expect(packed.hash()).rejects.toMatchObject(refused);
  await expect(packed.to(device)).rejects.toMatchObject(refused);
  for (const use of [
    () => packed.write(new Float32Array(2048)),
    () => packed.view([2048]),
    () => packed.slice([[0, 8]]),
    () => packed.permute([1, 0]),
    () => packed.expand([2, 32, 64]),
    () => packed.contiguous(),
    () => gemm.prepack({ w: packed }),
    () => gemm({ x: packed, w: device.random([8, 64], 'f32') }),
  ])
    expect(use).toThrow(expect.objectContaining(refused));
  expect(() => device.random([2, 2]).unpack()).toThrow('unpack: tensor is plain, expected a packed one');
});

test('what cannot be packed says so', async () => {
  const device = await cpu();
  const x = device.random([4, 64], 'f32');
  const w = device.random([8, 64], 'f32');
  expect(() => gemm.prepack({ x })).toThrow(/gemm.prepack: x is f32 \[4, 64\] for cpu, which has no packed format/);
  expect(() => gemm.prepack({ x, w })).toThrow('gemm.prepack: operands are x, w, expected one input of gemm');
  expect(() => gemm.prepack({})).toThrow('operands are none');
  expect(() => gemm.prepack({ w }, { keep: true } as object)).toThrow('keep is not an option');
  expect(() => gemm.prepack({ w: device.random([8], 'f32') })).toThrow('no packed format');
  w.dispose();
  expect(() => gemm.prepack({ w })).toThrow('w is disposed');
});

test('the format of another instruction set is refused', async () => {
  const isas = native().cpu().isa;
  if (isas.length < 2) return;
  const [one, other] = [await cpu('generic'), await cpu(isas[1])];
  const token = await gemm.prepack({ w: one.random([32, 64], 'f32') }).share();
  const adopted = other.adopt(token);
  expect(() => gemm({ x: other.random([2, 64], 'f32'), w: adopted })).toThrow(
    /gemm: w is packed in panels of 8 rows \(version 1\), expected panels of \d+ rows \(version 1\) or plain$/,
  );
});

test('it is shared as any other tensor', async () => {
  const [one, other] = [await cpu(), await cpu()];
  const w = one.random([70, 64], 'bf16', { seed: 1, ...whole });
  const packed = gemm.prepack({ w });
  const token = await packed.share();
  const adopted = other.adopt(structuredClone(token));
  expect(adopted.format).toBe(packed.format);
  const x = { seed: 2, ...whole };
  const [a, b] = [
    gemm({ x: other.random([3, 64], 'bf16', x), w: adopted }),
    gemm({ x: one.random([3, 64], 'bf16', x), w }),
  ];
  await same(a.y, b.y);
  expect(() => other.adopt({ ...token, format: 7 })).toThrow(/format is 7, expected panels of version 1/);
  expect(() => other.adopt({ ...token, shape: [7000, 64] })).toThrow('expected them within');
});

test('plans over one are measured cold on packed copies, and pools take it', async () => {
  const device = await cpu();
  const w = device.random([64, 64], 'f32', { seed: 1, ...whole });
  const packed = gemm.prepack({ w });
  const plan = gemm.bind({ x: device.random([4, 64], 'f32'), w: packed });
  const record = await measure(plan, { cache: 'cold', quick: true, maxSeconds: 0.2 });
  expect(record.correctness).toMatchObject({ state: 'passed' });
  const pool = gemm.pool({ m: 8, w: packed }, { slots: 2 });
  const { y } = await pool.run({ x: new Float32Array(3 * 64).fill(1) });
  await pool.close();
  const x = device.full([3, 64], 1, 'f32');
  expect(Array.from(y as ArrayLike<number>)).toEqual(Array.from(await gemm({ x, w }).y.read()));
});
