// Every operator, every case, every backend this machine has, against the definition in double precision.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkCase, type Device, openDevice, ops } from '../src/index.js';
import { native } from '../src/native.js';
import { targets } from './targets.js';

for (const target of targets().targets) {
  describe(target.name, () => {
    let device: Device;
    let reference: Device;
    beforeAll(async () => {
      device = await openDevice(target.device, target.options);
      reference = device.kind === 'cpu' ? device : await openDevice('cpu');
    });
    afterAll(async () => {
      const left = native().counters();
      expect({ buffers: left.buffers, plans: left.plans }).toEqual({ buffers: 0, plans: 0 });
      await device.close();
      if (reference !== device) await reference.close();
    });

    for (const op of Object.values(ops))
      for (const c of op.spec.cases())
        test(`${op.spec.name}: ${c.name}`, async ({ skip }) => {
          const outcome = await checkCase(op, c, { device, backend: target.backend, reference });
          if (outcome.state === 'declined') skip(`declined: ${outcome.reasons.join('; ')}`);
          expect(outcome.reasons, outcome.repro).toEqual([]);
          expect(outcome.outputs.length).toBeGreaterThan(0);
        });
  });
}
