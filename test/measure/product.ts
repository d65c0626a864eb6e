// What tests of energy measure: a small product on a device of its own, in short runs.
import { type Device, gemm, openDevice, type Plan } from '../../src/index.js';

export const quick = { quick: true, maxSeconds: 0.2, check: { seconds: 0.1 } } as const;

export async function smallProduct(): Promise<{ device: Device; plan: Plan }> {
  const device = await openDevice('cpu');
  const x = device.random([64, 256], 'f32', { seed: 1 });
  const w = device.random([256, 256], 'f32', { seed: 2 });
  return { device, plan: gemm.bind({ x, w }) };
}
