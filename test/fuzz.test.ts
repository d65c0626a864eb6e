// Random shapes, strides, dtypes and parameters; the seeds are fixed, so a failure here is a failure everywhere.
import { describe, expect, test } from 'vitest';
import { isPaired } from '../src/dtype.js';
import { formsOf, fuzzCase } from '../src/fuzz.js';
import { checkOp, openDevice, ops } from '../src/index.js';
import { planCase } from '../src/operands.js';
import { targets } from './targets.js';

const rounds = process.env.KERNWATT_FULL ? 500 : 40;

describe.each(targets().targets)('$name', (target) => {
  test.each(Object.values(ops).map((op) => [op.spec.name, op] as const))(
    `%s: ${rounds} random cases`,
    async (_, op) => {
      await using device = await openDevice(target.device, target.options);
      const count = device.info.emulated && !process.env.KERNWATT_FULL ? rounds / 4 : rounds;
      const failures: string[] = [];
      let ran = 0;
      for await (const { state, reasons, repro } of checkOp(op, {
        device,
        backend: target.backend,
        fuzz: count,
        seed: 1,
      })) {
        if (state === 'failed') failures.push(`${repro}\n  ${reasons.join('\n  ')}`);
        if (state !== 'declined') ++ran;
      }
      expect(failures.join('\n')).toBe('');
      expect(ran).toBeGreaterThan(count / 4);
    },
  );
});

test('a seed gives the same case again, and another seed another', async () => {
  await using device = await openDevice('cpu');
  for (const op of Object.values(ops)) {
    const first = fuzzCase(op, 7, device);
    expect(fuzzCase(op, 7, device)).toEqual(first);
    expect(fuzzCase(op, 8, device).dims).not.toEqual(first.dims);
  }
});

test('random cases reach every parameter value, dtype, layout and form of broadcasting', async () => {
  await using device = await openDevice('cpu');
  for (const op of Object.values(ops)) {
    const seen = new Set<string>();
    for (let seed = 0; seed < 300; ++seed) {
      const c = fuzzCase(op, seed, device);
      for (const o of planCase(op, c).operands) seen.add(`${o.name} ${o.dtype}`).add(`${o.name} ${o.layout}`);
      for (const [name, form] of Object.entries(c.broadcast ?? {})) seen.add(`${name} ${form}`);
      for (const [name, value] of Object.entries(c.params ?? {})) seen.add(`${name} ${value}`);
    }
    for (const [name, spec] of Object.entries(op.spec.tensors)) {
      const types = 'like' in spec.dtype ? (spec.dtype.or ?? []) : spec.dtype;
      for (const dtype of types) expect(seen).toContain(`${name} ${dtype}`);
      const paired = !('like' in spec.dtype) && spec.dtype.every(isPaired);
      for (const layout of paired ? ['dense'] : ['dense', 'padded', 'swapped', 'crossed'])
        expect(seen).toContain(`${name} ${layout}`);
      const { dims } = op.compiled.tensors.find((t) => t.name === name)!;
      for (const dim of spec.role === 'out' ? [] : dims)
        if (dim.broadcasts) for (const form of formsOf(dim.text)) expect(seen).toContain(`${name}.${dim.name} ${form}`);
    }
    for (const [name, spec] of Object.entries(op.spec.params)) {
      if (spec.kind === 'bool') for (const value of [true, false]) expect(seen).toContain(`${name} ${value}`);
      for (const value of spec.choices ?? []) expect(seen).toContain(`${name} ${value}`);
    }
  }
});
