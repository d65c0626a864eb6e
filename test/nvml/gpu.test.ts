// kernwatt/nvml against the fake, whose truth is known: units, which GPU is which, MIG, processes, GPM.
import { afterEach, describe, expect, expectTypeOf, test } from 'vitest';
import { type Gpu, type GpuQueries, openNvml, openNvmlSync } from '../../src/nvml/index.js';
import type { Scenario } from './fake.js';
import { close, lasting, open, refusal } from './opened.js';

afterEach(close);

describe('units', () => {
  const bursts: Scenario = {
    now: 0,
    power: [
      [0, 100],
      [0.5, 612.5],
      [1.5, 90],
    ],
    period: 2,
    tick_ms: 20,
    base_mj: 7000,
  };

  test('joules are the energy that was drawn up to the last tick', async () => {
    const { fake, gpu } = await open(bursts);
    expect(await gpu.energy()).toBe(7);
    for (const by of [0.02, 0.3, 1.24, 3.4]) {
      fake.advance(by);
      const tick = 0.02 * Math.floor(fake.now / 0.02 + 1e-9);
      expect(await gpu.energy()).toBeCloseTo(7 + fake.joules(0, tick), 2);
    }
  });

  test('a counter that was reset gives what it says', async () => {
    const { fake, gpu } = await open({ now: 0, power: 500, reset_at: 10, base_mj: 9000 });
    fake.advance(9);
    expect(await gpu.energy()).toBeCloseTo(9 + 4500, 2);
    fake.advance(2);
    expect(await gpu.energy()).toBeCloseTo(500, 2);
  });

  test('watts, now and over a second, of the board and of its memory', async () => {
    const { fake, gpu } = await open({ ...bursts, now: 5.6 });
    const average = fake.joules(4.6, 5.6);
    expect(average).toBeGreaterThan(450);
    expect(await gpu.power()).toBeCloseTo(average, 2);
    expect(await gpu.averagePower()).toBeCloseTo(average, 2);
    expect(await gpu.instantPower()).toBeCloseTo(90, 2);
    expect(await gpu.instantPower('memory')).toBeCloseTo(9, 2);
    expect(await refusal(gpu.instantPower('module'))).toMatchObject({ state: 'unsupported', status: 3 });
    expect(await gpu.powerLimit()).toBe(700);
    expect(await gpu.powerLimits()).toEqual({ limit: 700, default: 700, min: 200, max: 700 });
  });

  test('hertz, degrees, shares and bytes', async () => {
    const { gpu } = await open({
      now: 0,
      clock: 1755,
      memory_clock: 3201,
      temperature: 61,
      memory_temperature: 73,
      utilisation: 85,
      memory_utilisation: 33,
      memory_used: 123456789,
    });
    expect(await gpu.clock()).toBe(1.755e9);
    expect(await gpu.clock('memory')).toBe(3.201e9);
    expect(await gpu.maxClock('sm')).toBe(1.98e9);
    expect(await gpu.boostClock('video')).toBe(1.545e9);
    expect(await gpu.temperature()).toBe(61);
    expect(await gpu.memoryTemperature()).toBe(73);
    expect(await gpu.temperatureThreshold('slowdown')).toBe(89);
    expect(await gpu.utilisation()).toEqual({ gpu: 0.85, memory: 0.33 });
    const { totalBytes, freeBytes, usedBytes, reservedBytes } = await gpu.memory();
    expect(usedBytes).toBe(123456789);
    expect(totalBytes).toBe(143771 * 2 ** 20);
    expect(freeBytes + usedBytes + reservedBytes!).toBe(totalBytes);
  });

  test('throttled time in seconds, and the reasons while it lasts', async () => {
    const { fake, gpu } = await open({
      now: 0,
      throttle: [
        ['swPowerCap', 1, 2.5],
        ['hwThermal', 2, 4],
      ],
    });
    expect(await gpu.clockEvents()).toEqual([]);
    fake.advance(2.25);
    expect(await gpu.clockEvents()).toEqual(['software-power-cap', 'hardware-slowdown', 'hardware-thermal']);
    fake.advance(1.75);
    expect(await gpu.throttle()).toMatchObject({ powerCap: 1.5, hardwareThermal: 2, softwareThermal: 0, syncBoost: 0 });
    expect(await gpu.supportedClockEvents()).toHaveLength(9);
  });

  test('fields, each with its own state, in the units of NVML', async () => {
    const { fake, gpu } = await open({ ...bursts, now: 4, deny: ['field:186'] });
    const [energy, instant, memory, unknown] = await gpu.fields([83, 186, { field: 185, scope: 2 }, 9999]);
    expect(energy).toMatchObject({ field: 83, scope: 0, state: 'ok', value: 7000 + 1000 * fake.joules(0, 4) });
    expect(energy!.time).toBeCloseTo(1.7e9 + 4, -3);
    expect(instant).toMatchObject({ state: 'denied', value: null, detail: 'Insufficient Permissions (4)' });
    expect(memory).toMatchObject({ scope: 2, state: 'ok' });
    expect(unknown).toMatchObject({ state: 'unsupported', value: null });
  });

  test('samples that the driver kept', async () => {
    const { gpu } = await open({ now: 50, power: 321, tick_ms: 100 });
    const all = await gpu.samples('power');
    expect(all.length).toBeGreaterThan(10);
    expect(new Set(all.map(({ value }) => value))).toEqual(new Set([321]));
    expect(all[1]!.time - all[0]!.time).toBeCloseTo(0.1, 4);
    const last = all.at(-1)!.time;
    expect(await gpu.samples('power', last)).toEqual([]);
    expect(await gpu.samples('power', all.at(-4)!.time)).toHaveLength(3);
    expect((await refusal(gpu.samples('sm-clock'))).state).toBe('unsupported');
  });

  test('what describes a GPU', async () => {
    const { gpu } = await open({ now: 0 });
    expect(await gpu.pci()).toEqual({
      address: '0000:1b:00.0',
      domain: 0,
      bus: 0x1b,
      device: 0,
      vendorId: 0x10de,
      deviceId: 0x2335,
      subsystemId: 0x18be10de,
    });
    expect(await gpu.computeCapability()).toBe('9.0');
    expect(await gpu.architecture()).toBe('hopper');
    expect(await gpu.vbios()).toBe('96.00.A1.00.01');
    expect(await gpu.cores()).toBe(16896);
    expect(await gpu.memoryBusBits()).toBe(6144);
    expect(await gpu.pcieLink()).toMatchObject({ generation: 5, width: 16 });
    expect(await gpu.virtualisation()).toBe('none');
    expect(await gpu.computeMode()).toBe('default');
    expect(await gpu.persistence()).toBe(true);
    expect(await gpu.ecc()).toEqual({ current: true, pending: true });
    expect(await gpu.migMode()).toEqual({ current: false, pending: false });
    expect(await gpu.performanceState()).toBe(0);
    const nvml = await openNvml();
    expect(await nvml.driverVersion()).toBe('575.57.08');
    expect(await nvml.nvmlVersion()).toBe('12.575.57.08');
    expect(await nvml.cudaVersion()).toBe('12.9');
  });
});

describe('which GPU', () => {
  const three: Scenario = { now: 0, gpus: 3, each: [{ power: 100 }, { power: 200 }, { power: 300 }] };

  test('by PCI address in any spelling, UUID and index of NVML', async () => {
    const { gpu } = await open(three, 1);
    const nvml = await openNvml();
    expect(String(gpu)).toBe('Gpu(NVIDIA H200, 0000:2b:00.0)');
    for (const which of [gpu.address!, '00000000:2B:00.0', '2b:00.0', gpu.uuid!, 1])
      expect(await (await nvml.device(which)).instantPower()).toBe(200);
    const all = await nvml.devices();
    expect(all.map(({ index, address }) => [index, address])).toEqual([
      [0, '0000:1b:00.0'],
      [1, '0000:2b:00.0'],
      [2, '0000:3b:00.0'],
    ]);
    expect(await Promise.all(all.map((one) => one.instantPower()))).toEqual([100, 200, 300]);
    expect(await nvml.refused()).toEqual([]);
  });

  test('there is no such GPU, or no such name', async () => {
    await open(three);
    const nvml = await openNvml();
    expect(await refusal(nvml.device('0000:99:00.0'))).toMatchObject({ function: 'nvmlDeviceGetHandleByPciBusId_v2' });
    expect((await refusal(nvml.device(7))).message).toMatch(/^device: .*GPU 7/);
    for (const which of ['cuda:0', '', '0000:1b:00.0 ', '1b', -1, 0.5])
      await expect(nvml.device(which)).rejects.toMatchObject({ code: 'ERR_KERNWATT_ARGUMENT' });
  });

  test('one that refuses hides no other', async () => {
    await open({ now: 0, gpus: 2, each: [{ lost_at: 0 }, {}] }, 1);
    const nvml = await openNvml();
    expect((await nvml.devices()).map(({ index }) => index)).toEqual([1]);
    expect(await nvml.refused()).toEqual([
      { index: 0, state: 'lost', reason: 'nvmlDeviceGetHandleByIndex_v2 for GPU 0: GPU is lost (15)' },
    ]);
  });
});

describe('a divided GPU', () => {
  test('parts have memory and processes, the whole has energy', async () => {
    const { gpu } = await open({ now: 3, mig: 2, power: 300, memory_used: 4000, processes: [[21, 512]] });
    expect(await gpu.migMode()).toMatchObject({ current: true });
    expect((await lasting(() => gpu.utilisation())).state).toBe('unsupported');
    expect((await refusal(gpu.memory())).state).toBe('denied');
    const parts = await gpu.migDevices();
    expect(parts).toHaveLength(2);
    const [part] = parts as [Gpu, Gpu];
    expect(part).toMatchObject({ mig: true, index: null, address: null, uuid: expect.stringMatching(/^MIG-/) });
    expect(await part.memory()).toMatchObject({ usedBytes: 2000 });
    expect(await part.migInstance()).toMatchObject({ gpuInstance: 1, multiprocessors: 66, computeInstance: null });
    expect(await part.processes()).toEqual([{ pid: 21, usedBytes: 512, gpuInstance: 1, computeInstance: 0 }]);
    expect((await refusal(part.energy())).state).toBe('unsupported');
    const whole = await part.migParent();
    expect(whole.address).toBe(gpu.address);
    expect(await whole.energy()).toBe(await gpu.energy());
    expect(await (await (await openNvml()).device(part.uuid!)).memory()).toEqual(await part.memory());
  });

  test('GPM of a part is asked of the whole', async () => {
    const { gpu } = await open({ mig: 2, gpm: { 2: 77 } });
    const [part] = await gpu.migDevices();
    expect(await part!.gpm({ metrics: ['smUtilisation'], seconds: 0.1 })).toEqual({ smUtilisation: 0.77 });
  });
});

describe('processes', () => {
  const processes: Scenario['processes'] = [
    [101, 3000],
    [4194304, null],
    [103, 5000],
  ];
  const expected = [101, 4194304, 103].map((pid, i) => ({
    pid,
    usedBytes: [3000, null, 5000][i],
    gpuInstance: null,
    computeInstance: null,
  }));

  test.each([24, 32])('in entries of %d bytes, as drivers write them', async (process_bytes) => {
    const { gpu } = await open({ now: 0, processes, process_bytes });
    expect(await gpu.processes()).toEqual(expected);
  });

  test('none, and more than there is room for at first', async () => {
    const { fake, gpu } = await open({ now: 0 });
    expect(await gpu.processes()).toEqual([]);
    fake.set({ processes: Array.from({ length: 200 }, (_, i) => [1000 + i, i] as const) });
    expect((await gpu.processes()).map(({ usedBytes }) => usedBytes)).toEqual([...Array(200).keys()]);
  });

  test('entries of an unknown layout are refused, not guessed', async () => {
    const { gpu } = await open({ now: 0, processes, process_bytes: 48 });
    expect(await refusal(gpu.processes())).toMatchObject({ state: 'unavailable' });
  });

  test('accounts', async () => {
    const { gpu } = await open({ now: 0, processes, utilisation: 40 });
    expect(await gpu.accounting()).toBe(true);
    expect(await gpu.account(103)).toMatchObject({ utilisation: 0.4, peakBytes: 5000, running: true });
    expect((await refusal(gpu.account(7))).state).toBe('unavailable');
  });
});

describe('GPM', () => {
  test('shares and bytes per second between two samples; null for what this GPU does not count', async () => {
    const { gpu } = await open({ gpm: { 2: 91, 5: 64, 10: 37.5, 20: 100 }, unsupported: ['gpm:5'] });
    expect(await gpu.gpmSupported()).toBe(true);
    const metrics = ['smUtilisation', 'tensorUtilisation', 'dramUtilisation', 'pcieTransmit'] as const;
    expect(await gpu.gpm({ metrics })).toEqual({
      smUtilisation: 0.91,
      tensorUtilisation: null,
      dramUtilisation: 0.375,
      pcieTransmit: 100 * 2 ** 20,
    });
    expect(await refusal(gpu.gpm({ metrics: ['tensorUtilisation'] }))).toMatchObject({
      state: 'unsupported',
      detail: 'nvmlGpmMetricsGet, metric 5 for GPU 0000:1b:00.0: Not Supported (3)',
    });
  });

  test('samples too close, of another GPU, and aborts', async () => {
    const { gpu } = await open({ gpus: 2 });
    const first = await gpu.gpmSample();
    await expect(gpu.gpmMetrics(first, await gpu.gpmSample())).rejects.toThrow(/expected at least 100 ms/);
    const other = await (await openNvml()).device(1);
    const second = await other.gpmSample();
    await expect(gpu.gpmMetrics(first, second)).rejects.toThrow(/of another GPU/);
    const abort = new AbortController();
    const pending = gpu.gpm({ seconds: 60, signal: abort.signal });
    abort.abort(new Error('no longer wanted'));
    await expect(pending).rejects.toThrow('no longer wanted');
    await expect(gpu.gpm({ signal: abort.signal })).rejects.toThrow('no longer wanted');
  });

  test('a permission that is taken away', async () => {
    const { gpu } = await open({ deny: ['nvmlGpmSampleGet'] });
    expect(await refusal(gpu.gpm())).toMatchObject({ state: 'denied', function: 'nvmlGpmSampleGet' });
  });
});

test('blocking queries give the same as promises', async () => {
  const { gpu } = await open({ now: 7, power: 333, gpus: 2 });
  const nvml = openNvmlSync();
  expect(nvml.sync.devices().map(String)).toEqual((await nvml.devices()).map(String));
  expect(nvml.sync.device(gpu.uuid!).sync.energy()).toBe(await gpu.energy());
  for (const name of ['power', 'memory', 'throttle', 'pci', 'ecc', 'processes', 'clockEvents'] as const)
    expect(gpu.sync[name]()).toEqual(await gpu[name]());
  expect(gpu.sync.fields([186])).toMatchObject([{ value: 333000 }]);
});

test('types', () => {
  expectTypeOf<Gpu['clock']>().parameters.toEqualTypeOf<[('graphics' | 'sm' | 'memory' | 'video')?]>();
  expectTypeOf<Gpu['power']>().returns.toEqualTypeOf<Promise<number>>();
  expectTypeOf<GpuQueries['power']>().returns.toEqualTypeOf<number>();
  expectTypeOf<Gpu['sync']>().toEqualTypeOf<GpuQueries>();
  const narrow = (gpu: Gpu) => gpu.gpm({ metrics: ['smUtilisation'] });
  expectTypeOf<Awaited<ReturnType<typeof narrow>>>().toEqualTypeOf<{ smUtilisation: number | null }>();
});
