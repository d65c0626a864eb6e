// Lifetimes through the public interface, each in a process of its own: eight workers that end in every way while they compute,
// signals, garbage collection and disposal with work queued. Expected throughout: the exit code that was asked for, nothing on
// standard error that was not asked for, results that are right, and live counters back where they began.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test as vitest } from 'vitest';
import { librarySearch } from '../src/library.js';

const dist = pathToFileURL(resolve(import.meta.dirname, '../dist')).href;
const emulated = librarySearch('emu').some(({ path }) => existsSync(path));

/** `queue(device)` queues about half a second of products; `right(device)` computes one and compares it. */
const preamble = (device: string) => `
  import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
  import { gemm, openDevice } from ${JSON.stringify(`${dist}/index.js`)};
  import { native } from ${JSON.stringify(`${dist}/native.js`)};
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const size = ${device === 'cpu' ? 512 : 16};
  const open = () => openDevice(${JSON.stringify(device)}, ${device === 'cpu' ? '{ threads: 2 }' : '{}'});
  function queue(device, calls = 60) {
    const [x, w] = [1, 2].map((seed) => device.random([size, size], 'f32', { seed }));
    const plan = gemm.bind({ x, w });
    for (let i = 0; i < calls; i++) plan.enqueue();
    return { x, w, plan, y: plan.outputs.y };
  }
  async function right(device) {
    const x = device.tensor(Float32Array.of(1, 2, 3, 4), [2, 2]);
    const { y } = gemm({ x, w: x });
    const values = [...(await y.read())].join();
    if (values !== '5,11,11,25') throw new Error('wrong: ' + values);
    x.dispose();
    y.dispose();
  }
  const live = () => JSON.stringify(native().counters());
  async function settled(before) {
    for (let i = 0; i < 500 && live() !== before; i++) { globalThis.gc?.(); await sleep(10); }
    if (live() !== before) throw new Error('left behind: ' + live() + ', expected ' + before);
  }
`;

interface Ended {
  status: number | null;
  signal: string | null;
  out: string;
  err: string;
}

function run(device: string, body: string, onOutput?: (child: ReturnType<typeof spawn>) => void): Promise<Ended> {
  return new Promise((done, fail) => {
    const code = `${preamble(device)}\n${body}`;
    // Tests of the collector forget tensors on purpose, which small ones on the CPU do quietly.
    // V8's young generation grows to 40 MB by itself unless told.
    const flags = ['--expose-gc', '--disable-warning=KERNWATT_LEAK', '--max-semi-space-size=1'];
    const child = spawn(process.execPath, [...flags, '--input-type=module', '--eval', code], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 50_000,
    });
    const ended: Ended = { status: null, signal: null, out: '', err: '' };
    child.stdout.once('data', () => onOutput?.(child));
    child.stdout.on('data', (chunk) => {
      ended.out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      ended.err += chunk;
    });
    child.on('error', fail);
    child.on('close', (status, signal) => done({ ...ended, status, signal }));
  });
}

const fine = (out: string, status = 0): Ended => ({ status, signal: null, out, err: '' });

describe.each([
  ['the CPU', 'cpu', true],
  ['the emulator', 'emu', emulated],
])('on %s', (_, device, present) => {
  const test = vitest.skipIf(!present);

  /** Source of a worker that opens a device, queues work, reports and then does `end`. */
  const worker = (end: string) =>
    JSON.stringify(
      `data:text/javascript,${encodeURIComponent(`${preamble(device)}
        const device = await open();
        await right(device);
        const held = queue(device);
        const reading = held.y.read();
        parentPort.postMessage('busy');
        ${end}`)}`,
    );
  const eight = (end: string) => `
    const before = live();
    const workers = Array.from({ length: 8 }, () => new Worker(new URL(${worker(end)})));
    const ends = workers.map((w) => new Promise((done) => {
      let error = null;
      w.on('error', (e) => { error = e.message; }).on('exit', (status) => done([status, error]));
    }));
    await Promise.all(workers.map((w) => new Promise((done) => w.once('message', done))));`;

  test('eight workers terminated in mid-flight, one after the other, while the main thread computes', async () => {
    const body = `${eight('await reading; setInterval(() => {}, 1000);')}
      const device = await open();
      for (const w of workers) { await right(device); await w.terminate(); }
      await right(device);
      await device.close();
      await settled(before);
      console.log('alive');`;
    expect(await run(device, body)).toEqual(fine('alive\n'));
  });

  test('eight workers that exit, throw, or reject in mid-flight', async () => {
    for (const [end, expected] of [
      ['process.exit(5);', [5, null]],
      [`setTimeout(() => { throw new Error('on purpose'); });`, [1, 'on purpose']],
      [`Promise.reject(new Error('on purpose'));`, [1, 'on purpose']],
    ] as const) {
      const body = `${eight(end)}
        const all = JSON.stringify(await Promise.all(ends));
        const device = await open();
        await right(device);
        await device.close();
        await settled(before);
        console.log(all);`;
      expect(await run(device, body)).toEqual(fine(`${JSON.stringify(Array(8).fill(expected))}\n`));
    }
  });

  test('process.exit() of the main thread while eight workers compute', async () => {
    expect(await run(device, `${eight('await reading; setInterval(() => {}, 1000);')} process.exit(9);`)).toEqual(
      fine('', 9),
    );
  });

  test('SIGINT in mid-flight ends the process by that signal', async () => {
    const body = `const held = queue(await open()); console.log('busy'); await held.y.read(); setInterval(() => {}, 1000);`;
    const ended = await run(device, body, (child) => child.kill('SIGINT'));
    expect(ended).toEqual({ status: null, signal: 'SIGINT', out: 'busy\n', err: '' });
  });

  test('SIGINT and SIGTERM handled by closing the device: it drains, promises settle, the process ends by itself', async () => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      const body = `const before = live();
        const device = await open();
        process.once('${signal}', async () => {
          clearInterval(alive);
          await device.close();
          await settled(before);
          console.log('closed');
        });
        const alive = setInterval(() => {}, 1000);
        const held = queue(device);
        console.log('busy');
        await held.y.read();
        console.log('read');`;
      const ended = await run(device, body, (child) => child.kill(signal));
      expect({ ...ended, out: ended.out.split('\n').sort() }).toEqual({
        ...fine(''),
        out: ['', 'busy', 'closed', 'read'],
      });
    }
  });

  test('disposing twice, and use after it, with the work still queued', async () => {
    const body = `const before = live();
      const device = await open();
      const { x, w, plan, y } = queue(device);
      const reading = y.read();
      const codes = [];
      const refused = async (call) => { try { await call(); codes.push('none'); } catch (e) { codes.push(e.code); } };
      for (let i = 0; i < 2; i++) for (const one of [plan, x, w, y]) one.dispose();
      await refused(() => plan.enqueue());
      await refused(() => plan.run());
      await refused(() => x.read());
      await refused(() => x.write(new Float32Array(size * size)));
      await refused(() => gemm({ x, w }));
      await refused(() => gemm.bind({ x, w }));
      const values = await reading;
      if (!values.every(Number.isFinite) || values.length !== size * size) throw new Error('wrong');
      await Promise.all([device.close(), device.close()]);
      await device.close();
      await refused(() => device.zeros([4]));
      await refused(() => device.createStream());
      await settled(before);
      console.log(codes.join());`;
    expect(await run(device, body)).toEqual(fine(`${Array(8).fill('ERR_KERNWATT_DISPOSED').join()}\n`));
  });

  test('garbage collection with work queued: nothing is freed early, everything in the end', async () => {
    const body = `const device = await open();
      const first = queue(device, 1);
      const expected = [...(await first.y.read())].join();
      for (const one of [first.plan, first.x, first.w, first.y]) one.dispose();
      await device.stream.sync();
      const before = live(); // with the workspace that the stream keeps
      for (let round = 0; round < 10; round++) {
        const reading = (() => queue(device, 6).y.read())();
        for (let i = 0; i < 3; i++) { gc(); await sleep(0); }
        if ([...(await reading)].join() !== expected) throw new Error('wrong in round ' + round);
      }
      await settled(before);
      await device.close();
      console.log('right');`;
    expect(await run(device, body)).toEqual(fine('right\n'));
  });

  test('a device that is dropped without close() ends with the process, quietly', async () => {
    expect(await run(device, 'queue(await open(), 3); gc();')).toEqual(fine(''));
  });
});

vitest('twenty thousand tensors and plans made and disposed of leave memory flat', async () => {
  const body = `const device = await open();
    const x = device.random([16, 16]);
    const once = () => {
      const a = device.empty([64, 64]);
      const plan = gemm.bind({ x, w: x });
      plan.enqueue();
      plan.outputs.y.dispose();
      plan.dispose();
      a.dispose();
    };
    once();
    await device.stream.sync();
    const before = live(); // with the workspace that the stream keeps
    const rounds = [];
    for (let round = 0; round < 10; round++) {
      for (let i = 0; i < 2000; i++) { once(); if (i % 100 === 99) await device.stream.sync(); }
      gc();
      await sleep(5);
      rounds.push(process.memoryUsage.rss());
    }
    await settled(before);
    await device.close();
    console.log((rounds[9] - rounds[4]) / 10000);`;
  const ended = await run('cpu', body);
  expect(ended).toMatchObject({ status: 0, err: '' });
  // Bytes a cycle over the second half, where one of its objects leaked would be 500 to 16000. The collector's noise is below 4 MB.
  expect(Number(ended.out)).toBeLessThan(400);
});
