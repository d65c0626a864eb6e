// Tensors shared with worker threads, threads that workers share, and what a process is left with after thousands of everything.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test, vi } from 'vitest';
import { gemm, openDevice } from '../src/index.js';
import { native } from '../src/native.js';

const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: expect.stringMatching(message) });

describe('sharing', () => {
  test('gives a read-only tensor over the same memory, counted once', async () => {
    await using device = await openDevice('cpu');
    await using other = await openDevice('cpu');
    const x = device.random([64, 64], 'f32', { seed: 3 });
    const token = structuredClone(await x.share());
    const adopted = other.adopt(token);
    expect(await adopted.hash()).toBe(await x.hash());
    expect(other.memory().currentBytes).toBe(0);
    for (const tensor of [x, adopted]) {
      expect(() => tensor.write(new Float32Array(4096))).toThrow(refused('ARGUMENT', /shared with other threads/));
      expect(() => gemm({ x: tensor, w: tensor, y: tensor })).toThrow(refused('ARGUMENT', /y is shared|y overlaps/));
    }
    const bytes = native().counters().bytes;
    x.dispose();
    expect(native().counters().bytes).toBe(bytes);
    expect(await gemm({ x: adopted, w: adopted }).y.read()).toHaveLength(4096);
    const again = other.adopt(token);
    adopted.dispose();
    expect(await again.hash()).toMatch(/^[0-9a-f]{16}$/);
    again.dispose();
    await other.stream.mark(); // the hash's own step lets go a moment after it has resolved
    const gone = () => expect(() => other.adopt(token).dispose()).toThrow(refused('DISPOSED', /tensor that is gone/));
    await vi.waitFor(gone, 5000);
  });

  test('outlives the device that it began on', async () => {
    const device = await openDevice('cpu');
    await using other = await openDevice('cpu');
    const token = await device.full([1000], 4).share();
    const adopted = other.adopt(token);
    await device.close();
    expect((await adopted.read()).every((v) => v === 4)).toBe(true);
  });

  test('refuses what it cannot do', async () => {
    await using device = await openDevice('cpu');
    await expect(device.fromExternal(Float32Array.of(1)).share()).rejects.toEqual(
      refused('ARGUMENT', /SharedArrayBuffer/),
    );
    await expect(device.zeros([2, 3]).permute([1, 0]).share()).rejects.toEqual(refused('ARGUMENT', /contiguous/));
    const x = device.zeros([4]);
    const token = await x.share();
    for (const wrong of [null, {}, 'x', { ...token, kernwatt: 1 }, { ...token, id: 5 }])
      expect(() => device.adopt(wrong as never)).toThrow(
        refused('ARGUMENT', /token is not what tensor\.share\(\) gives/),
      );
    expect(() => device.adopt({ ...token, id: 'f'.repeat(32) })).toThrow(refused('DISPOSED', /another process/));
    for (const shape of [[5], [2 ** 50], [-1], 'x'])
      expect(() => device.adopt({ ...token, shape: shape as number[] })).toThrow(/^adopt/);
    for (const offset of [1, -1, 0.5, Number.NaN])
      expect(() => device.adopt({ ...token, offset })).toThrow(refused('ARGUMENT', /expected them within 16 bytes/));
    expect(() => device.adopt({ ...token, dtype: 'f33' as never })).toThrow(refused('DTYPE', /^adopt/));
    expect(x.disposed).toBe(false);
  });
});

/** Runs a script that has `kernwatt`, `native` and `worker(body, data)` in a process of its own. */
function run(body: string) {
  const dist = pathToFileURL(resolve(import.meta.dirname, '../dist/')).href;
  const preamble = `
    import * as kernwatt from ${JSON.stringify(`${dist}/index.js`)};
    import { native } from ${JSON.stringify(`${dist}/native.js`)};
    import * as threads from 'node:worker_threads';
    const { openDevice, gemm } = kernwatt;
    const sleep = (ms) => new Promise((done) => setTimeout(done, ms));`;
  const script = `${preamble}
    const worker = (body, data) => new threads.Worker(new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(preamble)} + body)), { workerData: data });
    const next = (one) => new Promise((done, fail) => { one.once('message', done); one.once('error', fail); });
    const exit = (one) => new Promise((done) => one.once('exit', done));
    ${body}`;
  const { stdout, stderr, status, signal } = spawnSync(
    process.execPath,
    ['--expose-gc', '--input-type=module', '-e', script],
    { encoding: 'utf8', timeout: 50_000 },
  );
  if (status !== 0) throw new Error(`${status ?? signal}: ${stderr}`);
  return JSON.parse(stdout);
}

describe('worker threads', () => {
  test('share weights without copies, and terminating one leaves nothing', () => {
    const result = run(`
      const device = await openDevice('cpu', { threads: 2 });
      const w = device.random([2048, 2048], 'f32', { seed: 5 });
      const expected = await w.hash();
      const token = await w.share();
      const body = \`
        const device = await openDevice('cpu', { threads: 2 });
        const w = device.adopt(threads.workerData);
        threads.parentPort.postMessage(await w.hash());
        const x = device.random([64, 2048]);
        const keep = setInterval(() => {}, 100);
        for (;;) { const { y } = gemm({ x, w }); await device.stream.mark(); y.dispose(); }\`;
      const workers = [0, 1, 2].map(() => worker(body, token));
      const hashes = await Promise.all(workers.map(next));
      const bytes = native().counters().bytes;
      w.dispose();
      await sleep(50);
      const stillThere = native().counters().bytes > 2048 * 2048 * 4;
      for (const one of workers) await one.terminate();
      let gone = false;
      // Threads of a worker end a moment after it, with what they hold.
      for (let i = 0; i < 100 && !gone; i++) {
        try { device.adopt(token).dispose(); } catch (error) { gone = error.code; }
        gc();
        await sleep(20);
      }
      await device.close();
      for (let i = 0; i < 100 && native().counters().bytes > 0; i++) { gc(); await sleep(20); }
      console.log(JSON.stringify({ same: hashes.every((h) => h === expected), copies: Math.floor(bytes / (2048 * 2048 * 4)),
        stillThere, gone, left: native().counters() }));
    `);
    expect(result).toEqual({
      same: true,
      copies: 1,
      stillThere: true,
      gone: 'ERR_KERNWATT_DISPOSED',
      left: { devices: 0, streams: 0, buffers: 0, bytes: 0, plans: 0, pending: 0, hostBuffers: 0 },
    });
  });

  test('that open the CPU alike use one set of threads', () => {
    const { threads } = run(`
      import { readdirSync, readFileSync } from 'node:fs';
      const body = \`
        const device = await openDevice('cpu', { threads: 3 });
        const x = device.random([256, 256]);
        await gemm({ x, w: x }).y.read();
        threads.parentPort.postMessage('open');
        setInterval(() => {}, 100);\`;
      const workers = [0, 1, 2, 3].map(() => worker(body));
      await Promise.all(workers.map(next));
      const names = readdirSync('/proc/self/task').map((task) => readFileSync('/proc/self/task/' + task + '/comm', 'utf8').trim());
      for (const one of workers) await one.terminate();
      console.log(JSON.stringify({ threads: names.filter((name) => /^kernwatt-\\d/.test(name)) }));
    `);
    expect(threads.sort()).toEqual(['kernwatt-1', 'kernwatt-2']);
  });

  test('are tied to the CPUs they are given', () => {
    const { cpus } = run(`
      import { readdirSync, readFileSync } from 'node:fs';
      const device = await openDevice('cpu', { threads: 2, affinity: [0] });
      const x = device.random([256, 256]);
      await gemm({ x, w: x }).y.read();
      const cpus = {};
      for (const task of readdirSync('/proc/self/task')) {
        const status = readFileSync('/proc/self/task/' + task + '/status', 'utf8');
        const name = /Name:\\s*(\\S+)/.exec(status)[1];
        if (/^kernwatt-(1|stream)/.test(name)) cpus[name] = /Cpus_allowed_list:\\s*(\\S+)/.exec(status)[1];
      }
      await device.close();
      console.log(JSON.stringify({ cpus }));
    `);
    expect(cpus).toEqual({ 'kernwatt-1': '0', 'kernwatt-stream': '0' });
  });
});

test('ten thousand tensors and plans, and hundreds of streams, devices and host buffers, leave the resident size flat', () => {
  const { slope } = run(`
    const device = await openDevice('cpu', { threads: 2 });
    const x = device.random([32, 32]);
    // V8's own heap comes and goes.
    const rss = () => { gc(); const { rss, heapTotal } = process.memoryUsage(); return rss - heapTotal; };
    const cycles = async (n) => {
      for (let i = 0; i < n; i++) {
        const { y } = gemm({ x, w: x });
        const plan = gemm.bind({ x: y, w: x });
        plan.enqueue();
        plan.dispose();
        y.dispose();
        if (i % 50 === 49) {
          const stream = device.createStream();
          device.random([1000], 'f32', { stream }).dispose();
          await stream.close();
          const other = await openDevice('cpu', { threads: 2 });
          other.zeros([1000]).dispose();
          await other.close();
          (await device.hostBuffer(10_000)).dispose();
        }
        if (i % 500 === 499) await device.stream.mark();
      }
      await device.stream.mark();
    };
    await cycles(8000);
    const from = rss();
    await cycles(10000);
    console.log(JSON.stringify({ slope: (rss() - from) / 2 ** 20 }));
    await device.close();
  `);
  // MiB: forgetting one tensor or plan of each cycle would take 30 and more.
  expect(slope).toBeLessThan(24);
});
