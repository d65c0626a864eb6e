// Is bf16 faster than f32 here, and by how much? Only an interleaved run can say: compare() takes turns between the two.
import { compare, gemm, openDevice } from 'kernwatt';

const [m, n, k] = [16, 1024, 1024];
const device = await openDevice();

const plans = {};
for (const dtype of ['f32', 'bf16']) {
  const x = device.random([m, k], dtype, { seed: 1 });
  const w = device.random([n, k], dtype, { seed: 2 });
  plans[dtype] = gemm.bind({ x, w });
}

const { ratios, records } = await compare(plans, { baseline: 'f32', cache: 'hot', quick: true });

for (const [name, { time, verdict }] of Object.entries(records)) {
  const { median } = time?.[time.headline] ?? {};
  console.log(`${name}: ${median ? `${(1e6 * median).toFixed(1)} µs` : 'no time'} (${verdict})`);
}
const { bf16 } = ratios;
if (bf16)
  console.log(
    `bf16 takes ${bf16.value.toFixed(3)} of the time of f32, 95 % interval ${bf16.ci95?.map((r) => r.toFixed(3))}`,
  );

await device.close();
