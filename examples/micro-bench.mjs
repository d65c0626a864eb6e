// One layer under tinybench, by the device's clock and as JavaScript sees it: npx kernwatt bench ./micro-bench.mjs
import { gemm } from 'kernwatt';
import { deviceTask } from 'kernwatt/tinybench';
import { Bench } from 'tinybench';

export default async function ({ device }) {
  const x = device.random([16, 1024], 'bf16', { seed: 1 });
  const w = device.random([1024, 1024], 'bf16', { seed: 2 });
  const plan = gemm.bind({ x, w, activation: 'silu' });
  const bench = new Bench({ time: 300 });
  bench.add('on the device', deviceTask(plan)).add('await plan.run()', async () => void (await plan.run()));
  await bench.run();
  return bench.table();
}
