// A sweep over the rows of x, from decoding to a prompt: where a product of one layer stops being bound by memory.
//
//   kernwatt bench bench/gemm.mjs [--backend cpu|cuda] [--out gemm.jsonl]
import { gemm } from 'kernwatt';

const rows = [1, 4, 16, 64, 256];
const [n, k] = [2048, 2048];

/** kernwatt passes an open device and its own measure(), whose records it prints and, with --out, keeps. */
export default async function sweep({ device, measure }) {
  const w = device.random([n, k], 'bf16', { seed: 1 });
  for (const m of rows) {
    const x = device.random([m, k], 'bf16', { seed: 2 });
    const plan = gemm.bind({ x, w });
    await measure(plan, { name: `${m} rows`, cache: 'cold', quick: true });
    plan.dispose();
    x.dispose();
  }
  w.dispose();
}
