// kernwatt/nvml where the fake lacks, refuses or fails: fallbacks of old drivers, and what each refusal says.
import { afterEach, describe, expect, test } from 'vitest';
import type { GpuQueries } from '../../src/nvml/index.js';
import { close, lasting, open, refusal } from './opened.js';

afterEach(close);

describe('older drivers', () => {
  test('newer structures are refused: the older ones answer', async () => {
    const { gpu } = await open({ now: 0, struct_version: 'old', memory_used: 1000, temperature: 55 });
    const { usedBytes, reservedBytes } = await gpu.memory();
    expect(reservedBytes).toBeNull();
    expect(usedBytes).toBe(1000 + 594 * 2 ** 20); // with what the driver reserves
    expect(await gpu.temperature()).toBe(55);
  });

  test('functions by their old names, and none where there is none', async () => {
    const { gpu } = await open({
      now: 0,
      power: 400,
      base_mj: 5000,
      processes: [[17, 2000]],
      missing: [
        'nvmlInit_v2',
        'nvmlDeviceGetMemoryInfo_v2',
        'nvmlDeviceGetTemperatureV',
        'nvmlDeviceGetCurrentClocksEventReasons',
        'nvmlDeviceGetComputeRunningProcesses_v3',
        'nvmlDeviceGetTotalEnergyConsumption',
        'nvmlDeviceGetPowerUsage',
        'nvmlDeviceIsMigDeviceHandle',
        'nvmlGpmSampleAlloc',
        'nvmlErrorString',
      ],
    });
    expect((await gpu.memory()).reservedBytes).toBeNull();
    expect(await gpu.temperature()).toBe(42);
    expect(await gpu.clockEvents()).toEqual([]);
    expect(await gpu.processes()).toMatchObject([{ pid: 17, usedBytes: 2000 }]);
    expect(await gpu.energy()).toBe(5);
    expect(gpu.mig).toBe(false);
    expect(await refusal(gpu.power())).toMatchObject({
      state: 'missing',
      status: null,
      function: 'nvmlDeviceGetPowerUsage',
      fix: 'a newer driver may have it',
    });
    expect((await refusal(gpu.gpm())).state).toBe('missing');
    expect((await refusal(gpu.instantPower('module'))).message).toMatch(/error \(3\)/);
  });
});

describe('refusals', () => {
  test('permission, support, arguments: state, status, function and message', async () => {
    const { gpu } = await open({ now: 0, deny: ['nvmlDeviceGetPowerUsage'], unsupported: ['field:82'] });
    const error = await refusal(gpu.power());
    expect(error).toMatchObject({
      code: 'ERR_KERNWATT_NVML',
      state: 'denied',
      status: 4,
      function: 'nvmlDeviceGetPowerUsage',
    });
    expect(error.message).toBe(
      'power: the answer is denied (nvmlDeviceGetPowerUsage for GPU 0000:1b:00.0: Insufficient Permissions (4)), ' +
        'expected a value; run as root',
    );
    expect((await lasting(() => gpu.memoryTemperature())).state).toBe('unsupported');
    expect(() => gpu.sync.power()).toThrow(error.message);
    const bad: (() => Promise<unknown>)[] = [
      () => gpu.clock('shader' as 'sm'),
      () => gpu.instantPower('cpu' as 'gpu'),
      () => gpu.fields([]),
      () => gpu.fields([-1]),
      () => gpu.fields([{ field: 83, scope: 0.5 }]),
      () => gpu.account(1.5),
      () => gpu.samples('power', Number.NaN),
      () => gpu.gpm({ seconds: 0.05 }),
      () => gpu.gpmMetrics({} as never, {} as never),
    ];
    for (const ask of bad) await expect(ask()).rejects.toMatchObject({ code: 'ERR_KERNWATT_ARGUMENT' });
  });

  test('`not supported` in passing is not taken for an answer', async () => {
    const { fake, gpu } = await open({ now: 0 });
    await gpu.power();
    await gpu.instantPower();
    fake.set({ unsupported: ['nvmlDeviceGetPowerUsage', 'field:186'] });
    expect(await refusal(gpu.power())).toMatchObject({ state: 'unavailable', status: 3 });
    expect(await refusal(gpu.instantPower())).toMatchObject({ state: 'unavailable' });
    expect(await lasting(() => gpu.power())).toMatchObject({ state: 'unsupported' });
    fake.set({ unsupported: undefined });
    expect(await gpu.power()).toBe(250);
  });

  test('every status has its state', async () => {
    const { fake, gpu } = await open({ now: 0 });
    const states = { 2: 'unsupported', 9: 'missing', 15: 'lost', 16: 'lost', 17: 'denied', 21: 'unavailable' };
    for (const [status, state] of Object.entries({ ...states, 10: 'unavailable', 999: 'unavailable' })) {
      fake.set({ fail: { nvmlDeviceGetVbiosVersion: Number(status) } });
      expect(await refusal(gpu.vbios())).toMatchObject({ state, status: Number(status) });
    }
  });

  test('a GPU that is lost says so in every query, and what to do', async () => {
    const { fake, gpu } = await open({ now: 0, lost_at: 5 });
    expect(await gpu.power()).toBe(250);
    fake.advance(6);
    const asked: (keyof GpuQueries)[] = ['power', 'energy', 'memory', 'throttle', 'processes', 'temperature'];
    for (const name of asked)
      expect(await refusal((gpu[name] as () => Promise<unknown>)())).toMatchObject({
        state: 'lost',
        fix: expect.stringMatching(/reset/),
      });
  });
});
