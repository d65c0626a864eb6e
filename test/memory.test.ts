// Memory as the public interface shows it: limits, reuse by eager calls, host buffers, memory of others, and tensors shared with
// worker threads.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { gemm, openDevice } from '../src/index.js';
import { native } from '../src/native.js';

const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: expect.stringMatching(message) });
const MiB = 2 ** 20;

describe('memoryLimit', () => {
  test('holds for tensors and workspaces, and what fits still works', async () => {
    await using device = await openDevice('cpu', { memoryLimit: 8 * MiB });
    expect(device.memory()).toMatchObject({ limitBytes: 8 * MiB, reservedBytes: 0 });
    const x = device.random([256, 256]);
    const expected = refused('OUT_OF_MEMORY', /expected at most \d+, what the memoryLimit of 8388608 leaves on /);
    for (const shape of [[4 * MiB], [2 ** 40], [2 ** 25, 2 ** 25]]) expect(() => device.empty(shape)).toThrow(expected);
    const { y } = gemm({ x, w: x });
    expect((await y.read()).every(Number.isFinite)).toBe(true);
    expect(device.memory().reservedPeakBytes).toBeLessThanOrEqual(8 * MiB);
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 53, '1e9', null])('of %s is refused', async (memoryLimit) => {
    await expect(openDevice('cpu', { memoryLimit: memoryLimit as number })).rejects.toEqual(
      refused('ARGUMENT', /^openDevice: memoryLimit is .*, expected a whole number of bytes/),
    );
  });

  test('there is none by default', async () => {
    await using device = await openDevice('cpu');
    expect(device.memory().limitBytes).toBeNull();
  });
});

test('eager outputs that are disposed of take one block, however many are queued, and each is right', async () => {
  await using device = await openDevice('cpu', { threads: 2 });
  const x = device.random([512, 512], 'f32', { seed: 1 });
  const scales = Array.from({ length: 24 }, (_, i) => device.full([512, 512], i));
  const w = device.random([512, 512], 'f32', { seed: 2 });
  await device.stream.mark();
  const { reservedBytes } = device.memory();
  const hashes = scales.map((scale) => {
    const { y } = gemm({ x, w });
    const { y: z } = gemm({ x: y, w: scale });
    const hash = z.hash();
    y.dispose();
    z.dispose();
    return hash;
  });
  expect(device.memory().reservedBytes - reservedBytes).toBeLessThan(12 * MiB);
  const { y } = gemm({ x, w });
  for (const [i, scale] of scales.entries()) {
    const { y: z } = gemm({ x: y, w: scale });
    expect(await z.hash()).toBe(await hashes[i]);
    z.dispose();
  }
  await device.stream.mark();
  await new Promise((done) => setTimeout(done, 20)); // the last of them goes back just after
  expect(await device.trim()).toBeGreaterThan(0);
});

describe('host buffers', () => {
  test('are read into, written from, and detached on dispose', async () => {
    await using device = await openDevice('cpu');
    const host = await device.hostBuffer(4 * 1000);
    const array = new Float32Array(host.buffer).map((_, i) => i);
    const view = new Float32Array(host.buffer, 400, 300).fill(5);
    const x = device.empty([300]).write(view);
    await device.stream.mark();
    view.fill(0);
    expect(await x.read({ into: view })).toBe(view);
    expect(view.every((v) => v === 5)).toBe(true);
    expect(array.length).toBe(1000);
    host.dispose();
    host.dispose();
    expect([host.disposed, host.buffer.byteLength, view.length]).toEqual([true, 0, 0]);
    await expect(x.read({ into: view })).rejects.toEqual(refused('SHAPE', /into has 0 elements, expected 300/));
  });

  test('cannot be transferred from under queued work', async () => {
    await using device = await openDevice('cpu');
    using host = await device.hostBuffer(4096);
    const before = new Uint8Array(host.buffer).fill(9);
    try {
      structuredClone(before, { transfer: [host.buffer] });
    } catch (error) {
      expect((error as Error).name).toBe('DataCloneError');
    }
    expect(before.length).toBe(4096);
  });

  test('read({ into }) takes nothing else', async () => {
    await using device = await openDevice('cpu');
    const x = device.full([4], 2, 'bf16');
    using host = await device.hostBuffer(64);
    await expect(x.read({ into: new Float32Array(4) })).rejects.toEqual(refused('ARGUMENT', /device\.hostBuffer\(\)/));
    await expect(x.read({ into: new Int32Array(host.buffer, 0, 4) })).rejects.toEqual(
      refused('DTYPE', /into is Int32Array, expected Float32Array/),
    );
    await expect(x.read({ into: new Float32Array(host.buffer, 0, 5) })).rejects.toEqual(refused('SHAPE', /expected 4/));
    const raw = new Uint16Array(host.buffer, 0, 4);
    expect(await x.read({ raw: true, into: raw })).toEqual(Uint16Array.of(0x4000, 0x4000, 0x4000, 0x4000));
  });

  test.each([0, -1, Number.NaN, 2 ** 53, 1.5, '8', undefined])('of %s bytes are refused', async (bytes) => {
    await using device = await openDevice('cpu');
    await expect(device.hostBuffer(bytes as number)).rejects.toEqual(refused('ARGUMENT', /^hostBuffer: bytes is /));
  });
});

describe('memory of the caller', () => {
  test('stays in place while a tensor uses it', async () => {
    await using device = await openDevice('cpu');
    const array = Float32Array.of(1, 2, 3);
    const x = device.fromExternal(array);
    const { buffer } = array;
    const ways: (() => void)[] = [() => structuredClone(array, { transfer: [buffer] })];
    if ('transfer' in buffer) ways.push(() => (buffer as unknown as { transfer(): void }).transfer());
    for (const way of ways) {
      try {
        way();
      } catch (error) {
        expect(['DataCloneError', 'TypeError']).toContain((error as Error).name);
      }
      expect(array).toEqual(Float32Array.of(1, 2, 3));
    }
    expect(await x.read()).toEqual(array);
  });

  test('that was detached all the same is refused', async () => {
    await using device = await openDevice('cpu');
    const array = Float32Array.of(1);
    const x = device.fromExternal(array, [1, 1]);
    const plan = gemm.bind({ x, w: device.full([1, 1], 1) });
    plan.enqueue();
    await device.stream.mark();
    native().detach(array.buffer);
    if (array.length !== 0) return expect(Number.parseInt(process.versions.node, 10)).toBeGreaterThanOrEqual(24);
    await expect(x.read()).rejects.toEqual(refused('DISPOSED', /detached/));
    expect(() => plan.enqueue()).toThrow(refused('DISPOSED', /detached/));
  });

  test('may be shared memory, but not resizable', async () => {
    await using device = await openDevice('cpu');
    const shared = new Float32Array(new SharedArrayBuffer(16)).fill(3);
    expect(await device.fromExternal(shared).read()).toEqual(Float32Array.of(3, 3, 3, 3));
    const Resizable = ArrayBuffer as unknown as new (bytes: number, options: { maxByteLength: number }) => ArrayBuffer;
    const resizable = new Float32Array(new Resizable(16, { maxByteLength: 32 }));
    expect(() => device.fromExternal(resizable)).toThrow(refused('ARGUMENT', /resizable/));
  });

  test('an address needs an owner, alignment, and to be one', async () => {
    await using device = await openDevice('cpu');
    for (const pointer of [0n, -8n, 6n, 2n ** 64n, 8, '8'])
      expect(() => device.fromPointer(pointer as bigint, [2], 'f32', {})).toThrow(
        refused('ARGUMENT', /^fromPointer: pointer is .*, expected a bigint above 0, aligned to 4 bytes, with 8 bytes/),
      );
    expect(() => device.fromPointer(8n, [2], 'f32', null as never)).toThrow(refused('ARGUMENT', /owner is null/));
    expect(() => device.fromPointer(8n, [-2], 'f32', {})).toThrow(refused('SHAPE', /^fromPointer/));
  });
});

describe('affinity', () => {
  test('is one thread for each CPU unless said otherwise', async () => {
    await using device = await openDevice('cpu', { affinity: [0] });
    expect(device.info.threads).toBe(1);
    await using both = await openDevice('cpu', { affinity: [0], threads: 2 });
    expect(both.info.threads).toBe(2);
    const x = both.random([300, 300]);
    const { y } = gemm({ x, w: x });
    expect(await y.hash()).toBe(await gemm({ x: x.contiguous(), w: x }).y.hash());
  });

  test.each([[[]], [[-1]], [[0.5]], ['0'], [[2 ** 20]], [null]])('%j is refused', async (affinity) => {
    await expect(openDevice('cpu', { affinity: affinity as number[] })).rejects.toEqual(
      refused('ARGUMENT', /^openDevice: affinity is .*, expected 1 to 1024 CPU numbers/),
    );
  });

  test('to a CPU that is not there is refused', async () => {
    await expect(openDevice('cpu', { affinity: [60_000] })).rejects.toEqual(
      refused('ARGUMENT', /affinity has CPU 60000/),
    );
  });
});

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
    await new Promise((done) => setTimeout(done, 20));
    expect(() => other.adopt(token)).toThrow(refused('DISPOSED', /tensor that is gone/));
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
