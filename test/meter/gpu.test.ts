// Energy of a GPU on the fake NVML: virtual time and known truth for bounds and estimates, and every way in which a GPU refuses.
import { afterEach, describe, expect, test } from 'vitest';
import type { Device } from '../../src/device.js';
import { estimateEnergy } from '../../src/energy/index.js';
import type { LoadWindow } from '../../src/energy/recording.js';
import { gpuLoad } from '../../src/measure/gpu_load.js';
import type { Known } from '../../src/measure/quantity.js';
import { type DomainRecording, type Mark, type Meter, openMeter } from '../../src/meter/meter.js';
import { randomSource } from '../../src/random.js';
import { Fake, type Scenario } from '../nvml/fake.js';

let fake: Fake;
const meters: Meter[] = [];
afterEach(async () => {
  for (const meter of meters.splice(0)) await meter.close();
  fake.stop();
});

async function opened(scenario: Scenario, gpu: string | number = 0): Promise<Meter> {
  fake = await Fake.start({ now: 1, ...scenario });
  const meter = await openMeter({ gpu, manual: true });
  meters.push(meter);
  return meter;
}

/** Virtual time goes on to `until`; the meter polls whenever something is due. */
function pass(meter: Meter, until: number): void {
  for (let due = meter.pollOnce(fake.now); due < until; due = meter.pollOnce(fake.now)) fake.advance(due - fake.now);
  fake.advance(until - fake.now);
  meter.pollOnce(fake.now);
}

/** Five windows of 2 s at `watts` over 100 W idle, one call a millisecond. */
async function loaded(scenario: Scenario, watts = 600) {
  const windows: LoadWindow[] = [0, 1, 2, 3, 4].map((i) => {
    const begin = 3.013 + 2.51 * i;
    return { begin, end: begin + 2, iterations: 2000, busySeconds: 2 };
  });
  // The load begins a little before each window and ends a little after.
  const power = windows.flatMap(({ begin, end }) => [[begin - 0.1, watts] as const, [end + 0.1, 100] as const]);
  const meter = await opened({ power: [[0, 100], ...power], clock: 1755, temperature: 55, ...scenario });
  pass(meter, 18);
  const [recording] = await meter.recording({ begin: 1, end: 18 });
  const { domain, data, scope } = recording!;
  const idle = { before: { begin: 1.2, end: 2.8 }, after: { begin: 15.5, end: 17.8 } };
  return { meter, domain, data, scope, estimate: estimateEnergy({ data, windows, idle, scope }), windows };
}

describe('begin() and end() against known truth', () => {
  test.each([
    [20, 0.02],
    [100, 0.1],
  ])('ticks of %d ms: 120 windows at any moment, the truth always within the bounds', async (tick_ms, period) => {
    const next = randomSource(tick_ms);
    const power = Array.from({ length: 20 }, (_, i) => [0.05 * i + 0.02 * next(), 90 + 600 * next()] as const);
    const meter = await opened({ power: [[0, 200], ...power], period: 1.07, tick_ms });
    pass(meter, 2);
    let error = 0;
    for (let i = 0; i < 120; i++) {
      pass(meter, fake.now + 0.1 * next());
      const mark = meter.begin();
      pass(meter, fake.now + 2.1 * period + 0.3 * next());
      const end = fake.now;
      const reading = meter.end(mark);
      pass(meter, end + 1.2 * period);
      const { seconds, domains } = await reading;
      expect(seconds).toBeCloseTo(end - mark.seconds, 9);
      const truth = fake.joules(mark.seconds, end);
      const { joules, bounds } = domains[0]!;
      // The counter's own unit, at each end.
      expect(bounds![0]).toBeLessThanOrEqual(truth + 0.002);
      expect(bounds![1]).toBeGreaterThanOrEqual(truth - 0.002);
      expect(bounds![1] - bounds![0]).toBeLessThan(4 * (period + 0.002) * 690);
      expect(joules.value, JSON.stringify(joules)).not.toBeNull();
      expect(joules.value).toBeGreaterThanOrEqual(bounds![0]);
      expect(joules.value).toBeLessThanOrEqual(bounds![1]);
      error += (joules.value! - truth) / truth / 120;
    }
    expect(Math.abs(error)).toBeLessThan(0.01);
  });

  test('a window below two periods has no joules, but what the power readings say, flagged as that', async () => {
    const meter = await opened({ power: 400, tick_ms: 100 });
    pass(meter, 3);
    const mark = meter.begin();
    pass(meter, fake.now + 0.15);
    const reading = meter.end(mark);
    pass(meter, fake.now + 0.2);
    const [gpu] = (await reading).domains;
    expect(gpu!.joules).toMatchObject({
      value: null,
      state: 'unavailable',
      reason: expect.stringMatching(
        /^the window of 0.15 s is shorter than two periods of the energy counter \(0.2 s\)/,
      ),
    });
    expect(gpu!.powerJ).toMatchObject({ value: expect.closeTo(60, 1), basis: expect.stringMatching(/^mean of power/) });
    expect(gpu!.domain).toMatchObject({ name: 'gpu:0', source: 'nvml', scope: 'gpu', state: 'ok', exclusive: true });
  });

  test('a counter that ticks every 100 ms is looked at a few times per tick, not every millisecond', async () => {
    const meter = await opened({ power: 400, tick_ms: 100 });
    pass(meter, 3);
    const [before] = await meter.recording({ begin: 3, end: 3 });
    expect(before!.domain.state).toBe('ok');
    let polls = 0;
    const until = 13;
    for (let due = meter.pollOnce(fake.now); due < until; due = meter.pollOnce(fake.now)) {
      polls++;
      fake.advance(due - fake.now);
    }
    // 50 for power and 40 around ticks a second at most, instead of 1000.
    expect(polls / 10).toBeLessThan(100);
    const [after] = await meter.recording({ begin: 3.5, end: 13 });
    expect(after!.data.counter.seconds.length).toBeGreaterThan(2 * 90);
  });
});

describe('estimateEnergy() on what the sampler recorded', () => {
  test('a steady load: the interval holds the truth, and all is well', async () => {
    const { estimate, domain } = await loaded({ noise: 0.01, seed: 7, processes: [] });
    expect(domain).toMatchObject({ state: 'ok', reason: null, fix: null, exclusive: true });
    const [low, high] = estimate.perCallJ.value === null ? [1, 0] : estimate.perCallJ.ci95!;
    expect(low).toBeLessThan(0.6);
    expect(high).toBeGreaterThan(0.6);
    expect(high - low).toBeLessThan(0.02 * 0.6);
    expect(estimate.windows).toHaveLength(5);
    expect(estimate.idleBeforeW.value).toBeCloseTo(100, 0);
    expect(estimate.netPerCallJ.value).toBeCloseTo(0.5, 1);
    expect(estimate.disputed).toEqual({ value: false, reasons: [] });
    expect(estimate.steady).toEqual({ value: true, reasons: [] });
    expect(estimate.attributable).toEqual({ value: true, reasons: [] });
    expect(estimate.clockHz).toEqual({ min: 1755e6, mean: 1755e6, max: 1755e6 });
    expect(estimate.temperatureC).toEqual({ begin: 55, end: 55 });
    expect(estimate.counter.periodSeconds.value).toBeCloseTo(0.02, 3);
    expect(estimate.counter.gapSeconds.value).toBeLessThan(0.0025);
  });

  test('throttling within the windows is counted in nanoseconds, and not steady', async () => {
    const { estimate } = await loaded({
      throttle: [
        ['hwThermal', 6, 6.5],
        ['swPowerCap', 1, 17],
      ],
    });
    expect(estimate.throttledNs.hwThermal).toBeCloseTo(0.5e9, -6);
    expect(estimate.steady.value).toBe(false);
    expect(estimate.steady.reasons.join()).toMatch(/50[01] ms of throttling, hwThermal/);
  });

  test('a counter that starts again costs the window it happened in', async () => {
    const { estimate } = await loaded({ reset_at: 9.1 });
    expect(estimate.windows).toHaveLength(4);
    expect(estimate.refused).toEqual([
      expect.objectContaining({ begin: 8.033, reason: expect.stringMatching(/went back from .* it was reset$/) }),
    ]);
    expect(estimate.perCallJ.value).toBeCloseTo(0.6, 2);
  });

  test('a GPU that is lost half-way leaves what was recorded before', async () => {
    const { estimate, domain } = await loaded({ lost_at: 9.1 });
    expect(domain).toMatchObject({ state: 'unavailable', reason: expect.stringMatching(/GPU.*\(15\)$/) });
    expect(estimate.windows.length).toBeGreaterThanOrEqual(2);
    expect(estimate.perCallJ.value).toBeCloseTo(0.6, 2);
  });

  test('one instance of a divided GPU: the counter is that of all of it', async () => {
    const { estimate, domain } = await loaded({ mig: 2 });
    expect(domain).toMatchObject({ scope: 'physical-gpu', exclusive: false, state: 'ok' });
    expect(domain.covers).toMatch(/one instance is a part$/);
    expect(estimate.attributable).toEqual({ value: false, reasons: [expect.stringMatching(/\(MIG\)$/)] });
    expect(estimate.perCallJ.value).toBeCloseTo(0.6, 2);
  });

  test('a counter that contradicts the power readings is disputed', async () => {
    const { estimate } = await loaded({ gain: 0.6 });
    expect(estimate.disputed).toEqual({ value: true, reasons: [expect.stringMatching(/67 % more than the energy/)] });
    expect((await loaded({ gain: 1.04 })).estimate.disputed.value).toBe(false);
  });

  test('work of other processes is seen; whether one of them is this process is not known', async () => {
    const { estimate, domain } = await loaded({ processes: [[4711, 1e9]] });
    expect(domain.exclusive).toBeNull();
    expect(estimate.attributable.value).toBeNull();
  });
});

describe('what a GPU refuses costs that and nothing else', () => {
  let another = 1;
  const energyOf = async (meter: Meter) => {
    pass(meter, 3);
    const mark = meter.begin();
    pass(meter, fake.now + 1);
    const reading = meter.end(mark);
    pass(meter, fake.now + 0.2);
    return (await reading).domains[0]!;
  };

  test.each<[string, Scenario, object]>([
    [
      'the energy field alone: the older function tells it',
      { unsupported: ['field:83'] },
      { value: expect.closeTo(250, 0) },
    ],
    [
      'all fields: functions tell energy and power',
      { deny: ['nvmlDeviceGetFieldValues'] },
      { value: expect.closeTo(250, 0) },
    ],
    [
      'energy: power is still read',
      { unsupported: ['field:83', 'nvmlDeviceGetTotalEnergyConsumption'] },
      { value: null, state: 'unsupported' },
    ],
    [
      'energy for want of permission',
      { deny: ['field:83'], unsupported: ['nvmlDeviceGetTotalEnergyConsumption'] },
      { value: null, state: 'denied' },
    ],
    [
      'to count',
      { stuck: 1 },
      { value: null, state: 'zero-stuck', reason: expect.stringMatching(/stays at .* J over/) },
    ],
    ['instant power', { unsupported: ['field:186'] }, { value: expect.closeTo(250, 0) }],
    [
      'clock, temperature and processes',
      {
        unsupported: [
          'nvmlDeviceGetClockInfo',
          'nvmlDeviceGetTemperatureV',
          'nvmlDeviceGetTemperature',
          'nvmlDeviceGetComputeRunningProcesses_v3',
          'nvmlDeviceGetComputeRunningProcesses_v2',
          'nvmlDeviceGetComputeRunningProcesses',
        ],
      },
      { value: expect.closeTo(250, 0) },
    ],
  ])('%s', async (_, scenario, joules) => {
    // A GPU of its own each: what has worked once is not forgotten by the library's binding.
    const meter = await opened({ gpus: 16, ...scenario }, ++another);
    const { joules: found, powerJ } = await energyOf(meter);
    expect(found).toMatchObject(joules);
    expect(powerJ.value).toBeCloseTo(250, 0);
  });

  test('a GPU that is not there, and one that no library knows', async () => {
    const meter = await opened({}, 7);
    pass(meter, 2);
    const [seven] = meter.domains;
    expect(seven).toMatchObject({ name: 'gpu', source: 'nvml', exclusive: null });
    expect(seven!.state).not.toBe('ok');
    expect(seven!.reason).toMatch(/nvmlDeviceGetHandleByIndex_v2 for GPU 7: .* \(2\)$/);
    const [gpu] = (await meter.end(meter.begin())).domains;
    expect(gpu!.joules).toMatchObject({ value: null, reason: seven!.reason });
  });

  test('the second GPU by its PCI address', async () => {
    const meter = await opened({ gpus: 2, each: [{ power: 100 }, { power: 300 }] }, 1);
    pass(meter, 2);
    expect(meter.domains[0]).toMatchObject({ name: 'gpu:1', state: 'ok' });
    expect((await energyOf(meter)).joules.value).toBeCloseTo(300, 0);
  });
});

describe('what is metered', () => {
  const device = (info: object, kind = 'cuda') => ({ kind, name: `${kind}:0`, info }) as unknown as Device;

  test('the GPU of a device, found by its PCI address; a process of this device is no other', async () => {
    fake = await Fake.start({ now: 1, gpus: 2, processes: [[1, 1e9]] });
    // The second GPU of the fake.
    const pci = '0000:2b:00.0';
    const meter = await openMeter({ device: device({ pci, emulated: false }), manual: true });
    meters.push(meter);
    pass(meter, 3);
    expect(meter.domains).toEqual([expect.objectContaining({ name: 'gpu:1', state: 'ok', exclusive: true })]);
    fake.set({
      processes: [
        [1, 1e9],
        [2, 1e9],
        [3, 1e9],
      ],
    });
    pass(meter, 6);
    const [{ scope, domain }] = (await meter.recording({ begin: 4.5, end: 5.5 })) as [DomainRecording];
    expect(domain.exclusive).toBe(false);
    expect(scope).toEqual({ scope: 'gpu', mig: false, otherProcesses: 2 });
  });

  test('an emulated device has no energy, and says why', async () => {
    fake = await Fake.start();
    const meter = await openMeter({ device: device({ pci: null, emulated: true }, 'emu') });
    expect(meter.domains).toEqual([
      expect.objectContaining({ name: 'gpu', source: null, state: 'unsupported', reason: 'emu:0 is emulated' }),
    ]);
    expect((await meter.end(meter.begin())).domains[0]!.joules).toMatchObject({ value: null, state: 'unsupported' });
    await meter.close();
  });

  test.each<[object, string]>([
    [{ device: 'cuda' }, 'openMeter: device is cuda, expected an open device or "cpu"'],
    [{ device: 'cpu', gpu: 0 }, 'openMeter: gpu is 0, expected no gpu beside a device'],
    [{ gpu: 'H200' }, /^openMeter: gpu is H200, expected an index, a UUID .* or a PCI address/.source],
    [{ gpu: -1 }, /^openMeter: gpu is -1, expected an index/.source],
    [{ sysfs: 5 }, 'openMeter: sysfs is 5, expected a folder'],
    [{ intervalSeconds: 0 }, 'openMeter: intervalSeconds is 0, expected from 1e-4 to 60'],
    [{ intervalSeconds: Number.NaN }, 'openMeter: intervalSeconds is NaN, expected from 1e-4 to 60'],
  ])('%j makes no sense', async (options, message) => {
    fake = await Fake.start();
    await expect(openMeter(options)).rejects.toMatchObject({ code: 'ERR_KERNWATT_ARGUMENT' });
    await expect(openMeter(options)).rejects.toThrow(new RegExp(message));
  });

  test('what begin() did not return is no mark', async () => {
    const meter = await opened({});
    await expect(meter.end(undefined as unknown as Mark)).rejects.toThrow(
      /^end: mark is undefined, expected what begin\(\) returned$/,
    );
  });
});

describe('busy share and SM clock in the windows', () => {
  // The load of loaded() has run for 0.1 s when a window begins, so that the first 0.9 s of it are left out.
  const settled = 0.1;

  test('means of the readings that cover load alone, with their range', async () => {
    const begins = [0, 1, 2, 3, 4].map((i) => 3.013 + 2.51 * i);
    // Each window: 10 % in its first 0.8 s, which is left out, then 60 %; nothing between windows.
    const utilisation = begins.flatMap((t) => [[t - 0.1, 10] as const, [t + 0.8, 60] as const, [t + 2.05, 0] as const]);
    // Two of five windows at the lower clock.
    const clock = [[0, 1200] as const, [begins[2]! - 0.2, 1700] as const];
    const { data, scope, windows } = await loaded({ utilisation: [[0, 0], ...utilisation], clock });
    const { busyShare, smClockHz } = gpuLoad({ data, scope }, windows, settled);
    expect(busyShare).toMatchObject({ unit: '1', state: 'ok', value: expect.closeTo(0.6, 12) });
    expect((busyShare as Known).basis).toMatch(
      /^share of time in which any kernel .*: mean of 2\d readings in 5 energy/,
    );
    // Every window holds as many readings, give or take one.
    expect(smClockHz.value! / 1e6).toBeCloseTo((2 * 1200 + 3 * 1700) / 5, -1);
    expect((smClockHz as Known).basis).toMatch(
      /^SM clock by NVML, 1200 to 1700 MHz: mean of 1\d\d readings in 5 energy/,
    );
    // Were the load to have run for a second already, the whole window would count.
    expect(gpuLoad({ data, scope }, windows, 1).busyShare.value).toBeLessThan(0.5);
  });

  test('asked five times a second at most', async () => {
    const meter = await opened({ utilisation: 40 });
    pass(meter, 11);
    const [recording] = await meter.recording({ begin: 1, end: 11 });
    const { seconds, values } = recording!.data.busyShare!;
    expect(new Set(Array.from(values))).toEqual(new Set([0.4]));
    expect(seconds.length).toBeGreaterThan(45);
    expect(seconds.length).toBeLessThanOrEqual(51);
  });

  test.each([
    [{ unsupported: ['nvmlDeviceGetUtilizationRates'] }, 'unsupported', /^nvmlDeviceGetUtilizationRates.*\(3\)$/],
    [{ deny: ['nvmlDeviceGetUtilizationRates'] }, 'denied', /^nvmlDeviceGetUtilizationRates.*\(4\)$/],
    [{ missing: ['nvmlDeviceGetUtilizationRates'] }, 'missing', /nvmlDeviceGetUtilizationRates/],
    [{ mig: 2 }, 'unsupported', /of whole GPUs alone, and this one is divided \(MIG\)$/],
  ])('%o: missing, %s, and the rest stays', async (scenario, state, reason) => {
    const { data, scope, windows, estimate } = await loaded(scenario);
    const { busyShare, smClockHz } = gpuLoad({ data, scope }, windows, settled);
    expect(busyShare).toEqual({ value: null, unit: '1', state, reason: expect.stringMatching(reason) });
    expect(smClockHz.value).toBe(1755e6);
    expect(estimate.perCallJ.value).toBeCloseTo(0.6, 2);
  });

  test('a clock that cannot be read, and windows too short for a busy share', async () => {
    const { data, scope, windows } = await loaded({ unsupported: ['nvmlDeviceGetClockInfo'] });
    expect(gpuLoad({ data, scope }, windows, settled).smClockHz).toMatchObject({
      state: 'unsupported',
      reason: expect.stringMatching(/^nvmlDeviceGetClockInfo/),
    });
    const short = windows.slice(0, 1).map(({ begin }) => ({ begin, end: begin + 0.85 }));
    expect(gpuLoad({ data, scope }, short, settled).busyShare).toMatchObject({
      state: 'unavailable',
      reason: 'no reading in 1 energy window covers load alone',
    });
  });

  test('a reading that failed once costs nothing but itself', async () => {
    const meter = await opened({ fail: { nvmlDeviceGetUtilizationRates: 999 }, utilisation: 70 });
    pass(meter, 3);
    const refused = async () => (await meter.recording({ begin: 1, end: fake.now }))[0]!.data;
    expect((await refused()).refused?.busyShare).toMatchObject({ state: 'unavailable' });
    fake.set({ fail: {} });
    pass(meter, 5);
    const { refused: still, busyShare } = await refused();
    expect(still).toBeUndefined();
    expect(busyShare!.values[0]).toBe(0.7);
  });
});
