// Did my change make it slower? Run this before and after, then let the gate decide:
//
//   node examples/gate.mjs base.jsonl        (before; three times is better than once)
//   node examples/gate.mjs new.jsonl         (after)
//   kernwatt gate base.jsonl new.jsonl --max-ratio 1.05
//
// Numbers of two runs must not be divided. So each run takes turns with a reference that no change of mine touches, and the
// gate divides the two ratios.
import { appendFile } from 'node:fs/promises';
import { compare, gemm, openDevice } from 'kernwatt';

const file = process.argv[2] ?? 'gate.jsonl';
const device = await openDevice();

const x = device.random([8, 1024], 'f32', { seed: 1 });
const w = device.random([1024, 1024], 'f32', { seed: 2 });
const reference = gemm.bind({ x, w });

/** What is under test: here one layer and the readback of its result, as a server would do it. */
async function mine() {
  const { y } = gemm({ x, w, activation: 'silu' });
  await y.read();
  y.dispose();
}

const { ratios, records } = await compare({ reference, mine }, { baseline: 'reference', cache: 'hot', quick: true });
await appendFile(
  file,
  Object.values(records)
    .map((record) => `${JSON.stringify(record)}\n`)
    .join(''),
);
console.log(`mine takes ${ratios.mine?.value.toFixed(3)} of the time of the reference; written to ${file}`);

await device.close();
