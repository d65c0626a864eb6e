// Processes and workers that end while work is under way: no crash, the exit code that was asked for, and no waiting for
// work that nobody will read.
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { addonFile, fakeLibrary } from './raw.js';

/** Common to all children: `start(options)` has `n` (the addon), a device, a stream and half a second of work queued on it. */
const preamble = `
  const n = require(${JSON.stringify(addonFile)});
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  async function start(library, { rounds = 1000, size = library ? 16 : 768 } = {}) {
    const device = await n.openDevice(library ? { kind: 'library', library } : { kind: 'cpu', threads: 2 });
    const stream = n.createStream(device);
    const view = (buffer) => ({ buffer, offset: 0, dtype: 0, shape: [size, size], stride: [size, 1] });
    const tensor = () => view(n.alloc(device, 4 * size * size));
    const own = new Float32Array(size * size);
    const [x, w] = [tensor(), tensor()];
    const y = library ? tensor() : view(n.wrap(device, own));
    for (const v of [x, w]) n.fill(stream, v, 'normal', 1, 0, 1);
    const plan = n.createPlan('gemm', library ? 'library' : 'cpu', stream, { x, w, y, beta: library ? 5 : 0 });
    const enqueue = n.enqueueFunction(plan);
    for (let i = 0; i < 100; i++) enqueue();
    const pending = [n.mark(stream), n.read(stream, y, new Float32Array(size * size), false), n.hash(stream, x)];
    const sample = { cases: [[plan]], order: new Uint32Array(rounds), calls: Uint32Array.of(10), clock: 'stream' };
    pending.push(n.sample(stream, sample));
    enqueue();
    pending.push(n.mark(stream));
    return { device, stream, plan, enqueue, pending, x, y };
  }
`;

function run(body: string, ...flags: string[]): SpawnSyncReturns<string> {
  const script = `${preamble}\n(async () => {${body}})();`;
  return spawnSync(process.execPath, [...flags, '-e', script], { encoding: 'utf8', timeout: 50_000 });
}

const clean = (result: SpawnSyncReturns<string>) => ({
  status: result.status,
  signal: result.signal,
  crashed: /terminate called|FATAL|Segmentation|AddressSanitizer/.test(result.stderr),
});
const ended = (status: number) => ({ status, signal: null, crashed: false });

describe.each([
  ['the CPU', undefined],
  ['a library', fakeLibrary()],
])('work under way on %s', (_, library) => {
  const start = `const bench = await start(${JSON.stringify(library)}); await sleep(20);`;

  test('process.exit()', () => {
    expect(clean(run(`${start} process.exit(7);`))).toEqual(ended(7));
  });

  test('an uncaught throw', () => {
    const result = run(`${start} setTimeout(() => { throw new Error('on purpose'); });`);
    expect(clean(result)).toEqual(ended(1));
    expect(result.stderr).toMatch(/on purpose/);
  });

  test('an unhandled rejection', () => {
    expect(clean(run(`${start} Promise.reject(new Error('on purpose'));`))).toEqual(ended(1));
  });

  test('a worker that is terminated, again and again, while the main thread goes on', () => {
    const result = run(`
      const { Worker } = require('node:worker_threads');
      const code = ${JSON.stringify(`${preamble}
        const { parentPort } = require('node:worker_threads');
        start(${JSON.stringify(library)}).then(async ({ stream, enqueue, plan, pending }) => {
          parentPort.postMessage('started');
          for (const promise of pending) await promise;
        });
        setInterval(() => {}, 1000);
      `)};
      for (let round = 0; round < 6; round++) {
        const workers = [0, 1].map(() => new Worker(code, { eval: true }));
        await Promise.all(workers.map((one) => new Promise((done, fail) => one.once('message', done).once('error', fail))));
        await sleep(round * 7);
        await Promise.all(workers.map((one) => one.terminate()));
      }
      console.log('alive');
    `);
    expect(clean(result)).toEqual(ended(0));
    expect(result.stdout).toBe('alive\n');
  });

  test('a worker that exits by itself, or throws', () => {
    const result = run(`
      const { Worker } = require('node:worker_threads');
      const worker = (end) => new Promise((done) => {
        const code = ${JSON.stringify(preamble)} + 'start(' + ${JSON.stringify(JSON.stringify(library) ?? '')} + ').then(() => { ' + end + ' });';
        let error;
        new Worker(code, { eval: true }).on('error', (e) => { error = e.message; }).on('exit', (status) => done([status, error]));
      });
      console.log(JSON.stringify([await worker('process.exit(5)'), await worker('setTimeout(() => { throw new Error("x") })')]));
    `);
    expect(clean(result)).toEqual(ended(0));
    expect(JSON.parse(result.stdout)).toEqual([
      [5, null],
      [1, 'x'],
    ]);
  });
});

test('a pending promise keeps the process alive; queued work alone does not', () => {
  const awaited = run(`
    const { stream } = await start(undefined, { rounds: 1, size: 128 });
    n.mark(stream).then(() => console.log('marked'));
  `);
  expect(clean(awaited)).toEqual(ended(0));
  expect(awaited.stdout).toBe('marked\n');
  const from = performance.now();
  const dropped = run(`
    const device = await n.openDevice({ kind: 'library', library: ${JSON.stringify(fakeLibrary())} });
    const stream = n.createStream(device);
    const v = { buffer: n.alloc(device, 4), offset: 0, dtype: 0, shape: [1], stride: [1] };
    n.enqueueFunction(n.createPlan('gemm', 'library', stream, { x: v, w: v, y: v, beta: 30000 }))();
  `);
  expect(clean(dropped)).toEqual(ended(0));
  expect(performance.now() - from).toBeLessThan(20_000);
});

test('the addon may be loaded in a worker alone, which then ends with threads of it at work', () => {
  const result = run(`
    const { Worker } = require('node:worker_threads');
    delete require.cache[${JSON.stringify(addonFile)}];
    const code = ${JSON.stringify(`${preamble} start().then(() => process.exit(0));`)};
    for (let i = 0; i < 3; i++) await new Promise((done) => new Worker(code, { eval: true }).on('exit', done));
    await sleep(200);
    console.log('alive');
  `);
  expect(clean(result)).toEqual(ended(0));
  expect(result.stdout).toBe('alive\n');
});

test('use from the main thread and workers at once', () => {
  const result = run(`
    const { Worker } = require('node:worker_threads');
    const code = ${JSON.stringify(`${preamble} start(undefined, { rounds: 1, size: 128 }).then(({ pending }) => Promise.all(pending)).then(() => process.exit(0));`)};
    const workers = [0, 1, 2].map(() => new Promise((done) => new Worker(code, { eval: true }).on('exit', done)));
    const { pending } = await start(undefined, { rounds: 1, size: 128 });
    await Promise.all(pending);
    console.log(JSON.stringify(await Promise.all(workers)));
    process.exit(0);
  `);
  expect(clean(result)).toEqual(ended(0));
  expect(JSON.parse(result.stdout)).toEqual([0, 0, 0]);
});
