// Sparse attention by its parts: means of windows of keys say which blocks are worth a look, every query attends to those alone, and dense
// attention says what that cost and what it missed. The choice is made here in plain JavaScript: any rule will do.
//
//   node examples/sparse-attention.mjs
import { attentionGqa, gemm, nsaAttend, nsaCompress, openDevice } from 'kernwatt';

const [length, heads, dim, block, count] = [4096, 16, 64, 64, 8];
const device = await openDevice(); // a GPU that opens, else the CPU

// Text about as many topics as there are blocks: keys lie around the topic of their block, and every query asks for one that has been. All heads
// of a token ask alike here; v is anything.
const normal = async (rows, seed) => (await device.random([rows, dim], 'f32', { seed }).read()).slice();
const topics = await normal(length / block, 1);
const keys = await normal(length, 2);
const queries = await normal(length * heads, 3);
for (let i = 0; i < length; ++i) {
  const asked = (i * 7919) % (Math.floor(i / block) + 1);
  for (let c = 0; c < dim; ++c) {
    keys[i * dim + c] += topics[Math.floor(i / block) * dim + c];
    for (let h = 0; h < heads; ++h) queries[(i * heads + h) * dim + c] += 2 * topics[asked * dim + c];
  }
}
const q = device.tensor(queries, [1, length, heads, dim], 'bf16');
const k = device.tensor(keys, [1, length, 1, dim], 'bf16');
const v = device.random([1, length, 1, dim], 'bf16', { seed: 4 });

// A window of each block, and how well every query head likes it.
const means = nsaCompress({ x: k, block, stride: block }).y;
const blocks = means.shape[1];
const scores = await gemm({
  x: q.view([length * heads, dim]),
  w: means.view([blocks, dim]),
}).y.read();

// For each query the first block, its own and the one before it, and those that its heads like best, in ascending order.
const chosen = new Int32Array(length * count).fill(-1);
for (let i = 0; i < length; ++i) {
  const own = Math.floor(i / block);
  const liking = (s) => {
    let sum = 0;
    for (let h = 0; h < heads; ++h) sum += Math.exp(scores[(i * heads + h) * blocks + s] / Math.sqrt(dim));
    return sum;
  };
  const forced = [...new Set([0, Math.max(0, own - 1), own])];
  const others = Array.from({ length: own + 1 }, (_, s) => s).filter((s) => !forced.includes(s));
  others.sort((a, b) => liking(b) - liking(a));
  const best = [...forced, ...others.slice(0, count - forced.length)].sort((a, b) => a - b);
  chosen.set(best, i * count);
}
const selected = device.tensor(chosen, [1, length, 1, count]);

const sparse = nsaAttend.bind({ q, k, v, blocks: selected, block });
const dense = attentionGqa.bind({ q, k, v, causal: true });
const timed = async (plan) => {
  await plan.run(); // once to warm up
  const started = performance.now();
  const { y } = await plan.run();
  return { ms: performance.now() - started, y: await y.read() };
};
const [few, all] = [await timed(sparse), await timed(dense)];
let [off, size] = [0, 0];
for (let i = 0; i < all.y.length; ++i) {
  off += (few.y[i] - all.y[i]) ** 2;
  size += all.y[i] ** 2;
}
const gflop = (plan) => (plan.work.flops / 1e9).toFixed(1);
console.log(`dense:  ${all.ms.toFixed(1)} ms, ${gflop(dense)} GFLOP`);
console.log(`sparse: ${few.ms.toFixed(1)} ms, ${gflop(sparse)} GFLOP, ${count} of ${blocks} blocks`);
console.log(`relative difference of the results: ${Math.sqrt(off / size).toExponential(1)}`);
await device.close();
