// Opening and closing devices, what they say about themselves, and their memory counters.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { gemm, openDevice } from '../src/index.js';
import { findLibrary, librarySearch } from '../src/library.js';
import { native } from '../src/native.js';

const refused = (code: string, message: string | RegExp) =>
  expect.objectContaining({
    code: `ERR_KERNWATT_${code}`,
    message: typeof message === 'string' ? message : expect.stringMatching(message),
  });

afterEach(() => {
  vi.unstubAllEnvs();
});

describe('openDevice', () => {
  test('cpu says what it is, and null for what it is not', async () => {
    await using device = await openDevice('cpu', { threads: 2 });
    expect(device).toMatchObject({ kind: 'cpu', name: 'cpu', closed: false });
    expect(device.info).toMatchObject({
      threads: 2,
      isa: native().cpu().isa.at(-1),
      computeCapability: null,
      emulated: false,
      multiprocessors: null,
      library: null,
    });
    expect(device.info.name).not.toBe('');
    expect(device.info.totalBytes).toBeGreaterThan(2 ** 20);
    expect(String(device)).toContain('cpu');
  });

  test('every instruction set that is offered opens', async () => {
    for (const isa of native().cpu().isa) {
      await using device = await openDevice('cpu', { isa, threads: 1 });
      expect(device.info.isa).toBe(isa);
    }
  });

  test('auto opens something that works', async () => {
    await using device = await openDevice();
    expect(await gemm({ x: device.full([1, 3], 2), w: device.full([1, 3], 5) }).y.read()).toEqual(Float32Array.of(30));
  });

  test('auto falls back to the CPU when the library of kernels is not there', async () => {
    vi.stubEnv('KERNWATT_CUDA_LIBRARY', '/nowhere/libkernwatt_cuda.so');
    await using device = await openDevice('auto');
    expect(device.kind).toBe('cpu');
    await expect(openDevice('auto', { library: '/nowhere/lib.so' })).rejects.toThrow(
      refused('LIBRARY', /lib\.so is missing|\/nowhere\/lib\.so/),
    );
  });

  test('unknown names, options and values are refused', async () => {
    await expect(openDevice('gpu' as never)).rejects.toThrow(
      refused('ARGUMENT', 'openDevice: device is gpu, expected auto, cpu, cuda, cuda:N, emu or emu:N'),
    );
    await expect(openDevice('cpu', { thread: 1 } as never)).rejects.toThrow(
      refused(
        'ARGUMENT',
        'openDevice: thread is not an option, expected threads, isa, affinity, memoryLimit, library, tuned',
      ),
    );
    for (const threads of [0, 1.5, -1, 1e9])
      await expect(openDevice('cpu', { threads })).rejects.toThrow(
        refused('ARGUMENT', `openDevice: threads is ${threads}, expected a whole number from 1 to 1024`),
      );
    await expect(openDevice('cpu', { isa: 'sse9' })).rejects.toThrow(
      refused('ARGUMENT', `openDevice: isa is sse9, expected one usable here: ${native().cpu().isa.join(', ')}`),
    );
  });
});

describe('libraries of kernels', () => {
  test('are looked for in the option, the environment, the checkout, beside the addon', () => {
    vi.stubEnv('KERNWATT_EMU_LIBRARY', '');
    expect(librarySearch('emu').map((place) => place.from)).toEqual([
      'this checkout',
      'beside the addon',
      'with the package',
    ]);
    vi.stubEnv('KERNWATT_EMU_LIBRARY', '/a/lib.so');
    expect(librarySearch('emu')).toEqual([{ path: '/a/lib.so', from: 'KERNWATT_EMU_LIBRARY' }]);
    expect(librarySearch('emu', '/b/lib.so')).toEqual([{ path: '/b/lib.so', from: 'the library option' }]);
  });

  test('that are missing say where they were expected and how to get one', () => {
    vi.stubEnv('KERNWATT_CUDA_LIBRARY', '/nowhere/libkernwatt_cuda.so');
    expect(() => findLibrary('cuda')).toThrow(
      refused(
        'LIBRARY',
        'openDevice: library libkernwatt_cuda.so is missing, expected at /nowhere/libkernwatt_cuda.so (KERNWATT_CUDA_LIBRARY); ' +
          'build it with `npm run build:cuda` (needs nvcc), or set KERNWATT_CUDA_LIBRARY',
      ),
    );
  });

  test('that are corrupt or something else are refused with the reason', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kernwatt-'));
    const text = join(folder, 'text.so');
    writeFileSync(text, 'not a library');
    await expect(openDevice('cuda', { library: text })).rejects.toThrow(refused('LIBRARY', /text\.so/));
    const [libm] = ['/lib/x86_64-linux-gnu/libm.so.6', '/lib64/libm.so.6', '/lib/aarch64-linux-gnu/libm.so.6'].filter(
      (f) => {
        try {
          return native().loadLibrary(f) === undefined;
        } catch (error) {
          return /kw_cuda_table/.test(String(error));
        }
      },
    );
    expect(libm, 'a library without kw_cuda_table is refused by that name').toBeDefined();
  });

  test('without a GPU say what is missing', async ({ skip }) => {
    if (librarySearch('cuda').every(({ path }) => !path.includes('.build'))) skip('no checkout');
    let found: ReturnType<typeof findLibrary> | undefined;
    try {
      found = findLibrary('cuda');
    } catch {
      await expect(openDevice('cuda')).rejects.toThrow(refused('LIBRARY', /libkernwatt_cuda\.so is missing/));
      return;
    }
    if (found.deviceCount > 0) skip('this machine has a GPU');
    expect(found.reason).not.toBe('');
    await expect(openDevice('cuda')).rejects.toThrow(
      refused('CUDA', `openDevice: no device for cuda:0: ${found.reason}`),
    );
  });
});

describe('close', () => {
  test('drains, is idempotent, and disposes of everything on the device', async () => {
    const device = await openDevice('cpu');
    const x = device.random([64, 64]);
    const plan = gemm.bind({ x, w: x });
    plan.enqueue();
    const closing = device.close();
    expect(device.close()).toBe(closing);
    await closing;
    expect([device.closed, x.disposed, plan.disposed, device.stream.closed]).toEqual([true, true, true, true]);
    expect(() => device.zeros([1])).toThrow(refused('DISPOSED', 'zeros: device cpu is closed, expected an open one'));
    expect(() => gemm({ x, w: x })).toThrow(
      refused('DISPOSED', 'gemm: x is on cpu, which is closed; expected an open device'),
    );
    await expect(x.read()).rejects.toThrow(refused('DISPOSED', /read: tensor is on cpu, which is closed/));
    expect(() => plan.enqueue()).toThrow(expect.objectContaining({ code: 'ERR_KERNWATT_DISPOSED' }));
    expect(() => device.memory()).toThrow(refused('DISPOSED', /^memory: device cpu is closed/));
    for (const thing of [x, plan]) thing.dispose();
  });

  test('leaves other devices alone and gives everything back', async () => {
    const before = native().counters();
    await using stays = await openDevice('cpu');
    const kept = stays.full([2], 4);
    for (let i = 0; i < 5; ++i) {
      await using device = await openDevice('cpu', { threads: 2 });
      using t = device.random([100, 100]);
      await t.read();
    }
    expect(await kept.read()).toEqual(Float32Array.of(4, 4));
    kept.dispose();
    await stays.close();
    expect(native().counters()).toEqual(before);
  });
});

test('memory counters are exact, and averages lie between what was used', async () => {
  await using device = await openDevice('cpu');
  const start = device.memory();
  const a = device.empty([1 << 20], 'f32');
  const b = device.empty([1 << 20], 'bf16');
  const high = device.memory();
  expect(high.currentBytes - start.currentBytes).toBe(4 * 2 ** 20 + 2 * 2 ** 20);
  expect(high.allocations - start.allocations).toBe(2);
  a.dispose();
  b.dispose();
  await device.stream.sync();
  const end = device.memory();
  expect(end.currentBytes).toBe(start.currentBytes);
  expect(end.peakBytes).toBeGreaterThanOrEqual(high.currentBytes);
  expect(end.averageBytes).toBeGreaterThan(0);
  expect(end.averageBytes).toBeLessThanOrEqual(end.peakBytes);
  expect(end.seconds).toBeGreaterThan(0);
  expect(end.byteSeconds).toBeCloseTo(end.averageBytes * end.seconds, 0);
  expect(end.totalBytes).toBeGreaterThanOrEqual(end.freeBytes);
});
