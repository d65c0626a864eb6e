// What LeakSanitizer watches (tools/asan.mjs): a process that uses everything once, well and badly, drops much of it without
// disposing, and ends by itself. Whatever is unreachable then was leaked.
import { Worker } from 'node:worker_threads';
import { checkCase, compare, gemm, measure, openDevice, ops } from '../../dist/index.js';

const refused = async (call) => {
  try {
    await call();
  } catch (error) {
    if (String(error.code).startsWith('ERR_KERNWATT_')) return;
    throw error;
  }
  throw new Error(`not refused: ${call}`);
};

async function work(device) {
  const x = device.random([64, 64], 'f32', { seed: 1 });
  const w = device.tensor(new Float32Array(64 * 64), [64, 64], 'bf16');
  const plan = gemm.bind({ x, w: x });
  for (let i = 0; i < 50; i++) plan.enqueue();
  await plan.run();
  plan.explain();
  const { y } = gemm({ x, w: x, activation: 'silu' });
  await y.read();
  await refused(() => gemm({ x, w }));
  await refused(() => device.zeros([2 ** 50]));
  await refused(() => openDevice('cpu', { isa: 'none' }));
  await refused(() => openDevice('emu', { library: '/etc/passwd' }));
  for (const one of [plan, y, x]) one.dispose();
  await refused(() => plan.enqueue());
  const stream = device.createStream();
  await stream.sync();
  await stream.close();
  gemm({ x: device.random([8, 8]), w: device.random([8, 8]) }); // forgotten while it is queued
}

const device = await openDevice('cpu', { threads: 2 });
await work(device);
for (const op of Object.values(ops)) await checkCase(op, op.spec.cases()[0], { device });
const [a, b] = [1, 2].map((seed) =>
  gemm.bind({ x: device.random([16, 16], 'f32', { seed }), w: device.random([16, 16]) }),
);
await measure(a, { quick: true, maxSeconds: 0.2 });
await compare({ a, b }, { quick: true, maxSeconds: 0.2 });
await device.close();
await refused(() => device.zeros([1]));

const code = `import { gemm, openDevice } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
  const device = await openDevice('cpu', { threads: 1 });
  const x = device.random([256, 256]);
  const plan = gemm.bind({ x, w: x });
  for (let i = 0; i < 50; i++) plan.enqueue();
  await plan.outputs.y.read();
  await device.close();`;
const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
const status = await new Promise((done, fail) => worker.on('exit', done).on('error', fail));
if (status !== 0) throw new Error(`the worker ended with ${status}`);
await openDevice('cpu'); // never closed
console.log('leaks: everything was used');
