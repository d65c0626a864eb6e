// Multiply two matrices: y = x Wᵀ. Linear weights are [out, in], as checkpoints store them.
import { gemm, openDevice } from 'kernwatt';

const device = await openDevice(); // a GPU that opens, else the CPU

const x = device.tensor(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
const w = device.tensor(new Float32Array([1, 0, 0, 0, 1, 0]), [2, 3]);

const { y } = gemm({ x, w }); // queued; returns at once
console.log(`${device.info.name}: y is`, y.shape, await y.read()); // waits for y alone

// The same product again and again: check and bind once, then queue.
const plan = gemm.bind({ x, w, y });
for (let i = 0; i < 1000; i++) plan.enqueue();
await device.stream.mark();
console.log(plan.explain());

await device.close(); // gives back everything that lives on it
