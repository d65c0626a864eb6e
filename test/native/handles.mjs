// Every native object, on the CPU and a library, given back, forgotten, or left by a worker that ends in any way, in a process that ends
// by itself so that LeakSanitizer looks at what is left. tools/asan.mjs runs it; the live counters are compared on the way.
//
//   node --expose-gc test/native/handles.mjs ADDON LIBRARY
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

const [addon, library] = isMainThread ? process.argv.slice(2) : workerData.files;
const n = createRequire(import.meta.url)(addon);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const view = (buffer, shape) => ({ buffer, offset: 0, dtype: 0, shape, stride: [...shape.slice(1), 1] });

/** Every function once or more, with nothing disposed of where `dispose` is false: then closing or the collector must do it. */
async function use(options, dispose) {
  const device = await n.openDevice(options);
  const backend = options.kind === 'cpu' ? 'cpu' : 'library';
  const stream = n.createStream(device);
  const tensor = (on) => view(n.alloc(device, 4 * 64 * 64, on), [64, 64]);
  for (let i = 0; i < 20; i++) {
    const [x, w, y] = [tensor(stream), tensor(), tensor(stream)];
    n.fill(stream, x, 'normal', 1, 0, 1);
    n.write(stream, w, new Float32Array(64 * 64), false);
    const plan = n.createPlan('gemm', backend, stream, { x, w, y });
    const enqueue = n.enqueueFunction(plan);
    enqueue();
    n.enqueue(plan);
    n.copy(stream, y, x);
    const host = await n.hostBuffer(device, 4 * 64 * 64);
    const results = [n.read(stream, y, new Float32Array(host), false), n.hash(stream, x), n.mark(stream)];
    const id = n.share(y.buffer);
    const { buffer } = n.adopt(device, id);
    const far = n.wrapPointer(device, 4096n, 16, { owner: i });
    if (options.kind === 'cpu') n.copy(stream, view(n.wrap(device, new Float32Array(4)), [4, 1]), view(buffer, [4, 1]));
    assert.throws(() => n.alloc(device, -1));
    assert.throws(() => n.adopt(device, 'nothing'));
    assert.throws(() => n.createPlan('gemm', backend, stream, { x }));
    if (dispose) {
      n.detach(host);
      for (const b of [x.buffer, w.buffer, y.buffer, buffer, far]) n.free(b);
      n.destroyPlan(plan);
    }
    await Promise.all(results);
  }
  await n.trim(device);
  if (dispose) await n.destroyStream(stream);
  if (dispose) await n.closeDevice(device);
}

const kinds = [
  { kind: 'cpu', threads: 2, memoryLimit: 2 ** 30 },
  { kind: 'library', library },
];

if (isMainThread) {
  for (const dispose of [true, false]) for (const options of kinds) await use(options, dispose);
  const files = [addon, library];
  const self = new URL(import.meta.url);
  for (const end of ['by itself', 'process.exit', 'terminate']) {
    const workers = kinds.map((options) => new Worker(self, { workerData: { files, options, end } }));
    const exits = workers.map((worker) => new Promise((done) => worker.once('exit', done)));
    await Promise.all(workers.map((worker) => new Promise((done) => worker.once('message', done))));
    if (end === 'terminate') for (const worker of workers) await worker.terminate();
    await Promise.all(exits);
  }
  const live = () => Object.values(n.counters()).some((count) => count !== 0);
  for (let i = 0; i < 200 && live(); i++) {
    globalThis.gc();
    await sleep(10);
  }
  assert.deepEqual(n.counters(), {
    devices: 0,
    streams: 0,
    buffers: 0,
    bytes: 0,
    plans: 0,
    pending: 0,
    hostBuffers: 0,
  });
  console.log('handles: live counters are zero');
} else {
  const { options, end } = workerData;
  await use(options, true);
  const work = use(options, false);
  parentPort.postMessage('at work');
  if (end === 'process.exit') process.exit(0);
  if (end === 'terminate') setInterval(() => {}, 1000);
  await work;
}
