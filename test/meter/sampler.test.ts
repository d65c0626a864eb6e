// The sampling thread itself, on real time: what it costs, that many meters share it, that slow drivers never hold up JavaScript, and
// that hours of readings fit into little memory.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from 'vitest';
import { estimateEnergy } from '../../src/energy/index.js';
import { type DomainRecording, openMeter } from '../../src/meter/meter.js';
import { native } from '../../src/native.js';
import { Fake, type Scenario } from '../nvml/fake.js';
import { tree, write, zone } from './tree.js';

let fake: Fake | undefined;
afterEach(() => {
  fake?.stop();
  fake = undefined;
});

const dist = new URL('../../dist/index.js', import.meta.url).href;

const threads = () => Number(/^Threads:\s*(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);

/** Of this process, once no thread has come or gone for a while: one that was told to end still counts. */
async function steadyThreads(): Promise<number> {
  let last = threads();
  for (let same = 0; same < 10; same++) {
    await setTimeout(20);
    const now = threads();
    if (now !== last) same = 0;
    last = now;
  }
  return last;
}

/** Waits until `what` holds; the test's own limit is what ends it otherwise. */
async function until(what: () => boolean): Promise<void> {
  while (!what()) await setTimeout(5);
}

describe('on real time', () => {
  test('a GPU that draws 321 W: joules between bounds that hold the truth', async () => {
    fake = await Fake.start({ power: 321 });
    await using meter = await openMeter({ gpu: 0 });
    expect(meter.domains).toEqual([
      expect.objectContaining({ name: 'gpu:0', source: 'nvml', state: 'ok', reason: null }),
    ]);
    for (const seconds of [0.3, 0.5]) {
      const mark = meter.begin();
      await setTimeout(1000 * seconds);
      const reading = await meter.end(mark);
      const truth = 321 * reading.seconds;
      const [{ joules, bounds, powerJ }] = reading.domains as [(typeof reading.domains)[0]];
      expect(joules.value! / truth).toBeCloseTo(1, 1);
      expect(bounds![0]).toBeLessThanOrEqual(truth + 0.01);
      expect(bounds![1]).toBeGreaterThanOrEqual(truth - 0.01);
      expect(powerJ.value! / truth).toBeCloseTo(1, 1);
    }
    const { cpuSeconds, seconds, polls, sources } = meter.cost();
    expect(sources).toBe(1);
    expect(polls).toBeGreaterThan(50);
    expect(seconds).toBeGreaterThan(0.8);
    expect(cpuSeconds).toBeGreaterThan(0);
    expect(cpuSeconds / seconds).toBeLessThan(0.5);
  });

  test('calls that take 150 ms hold up nobody but themselves', async () => {
    fake = await Fake.start({ power: 100, slow_ms: { nvmlDeviceGetFieldValues: 150 } });
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    const meter = await openMeter({ gpu: 0 });
    const mark = meter.begin();
    await setTimeout(600);
    const { domains } = await meter.end(mark);
    await meter.recording({ begin: mark.seconds, end: meter.now() });
    await meter.close();
    delay.disable();
    // A percentile, as the machine itself may stop for longer.
    expect(delay.percentile(90) / 1e6).toBeLessThan(100);
    expect(domains[0]!.bounds === null || domains[0]!.bounds[0] >= 0).toBe(true);
  });

  test('where the driver says when its counter ticked, slow calls cost no precision; where it says the time of the call, they do', async () => {
    const gap = async (scenario: Scenario) => {
      fake = await Fake.start({ power: 100, tick_ms: 50, slow_ms: { nvmlDeviceGetFieldValues: 6 }, ...scenario });
      await using meter = await openMeter({ gpu: 0 });
      await setTimeout(1700);
      const end = meter.now();
      const [recording] = await meter.recording({ begin: end - 0.6, end });
      const { data, scope } = recording!;
      const window = { begin: end - 0.6, end, iterations: 1, busySeconds: null };
      const { counter, powerW } = estimateEnergy({ data, windows: [window], scope });
      fake.stop();
      expect(powerW.value! / 100, JSON.stringify([recording!.domain, powerW, counter])).toBeCloseTo(1, 1);
      return counter.gapSeconds.value!;
    };
    expect(await gap({ stamp: 'tick' })).toBeLessThan(0.00101);
    expect(await gap({})).toBeGreaterThan(0.006);
  });

  test('meters of one counter share it and the thread; the last to close ends both', async () => {
    fake = await Fake.start({ power: 100 });
    const root = tree(zone('intel-rapl:0', 'package-0'));
    await until(() => native().samplerCost().sources === 0);
    const before = await steadyThreads();
    const meters = [await openMeter({ gpu: 0 }), await openMeter({ gpu: 0 }), await openMeter({ sysfs: root })];
    expect(native().samplerCost().sources).toBe(2);
    expect(threads()).toBe(before + 1);
    await meters[0]!.close();
    await meters[0]!.close();
    expect(native().samplerCost().sources).toBe(2);
    for (const meter of meters) await meter.close();
    expect(native().samplerCost().sources).toBe(0);
    await until(() => threads() === before);
    await expect(meters[1]!.end({ seconds: 0 })).rejects.toThrow(/^end: meter is closed, expected an open one$/);
    expect(() => meters[1]!.begin()).toThrow(expect.objectContaining({ code: 'ERR_KERNWATT_DISPOSED' }));
  });

  test('a worker that is terminated takes its meters with it', async () => {
    const root = tree(zone('intel-rapl:0', 'package-0'));
    const script = `import { openMeter } from ${JSON.stringify(dist)};
      import { parentPort } from 'node:worker_threads';
      const meter = await openMeter({ sysfs: ${JSON.stringify(root)} });
      void meter.end(meter.begin());
      parentPort.postMessage(meter.domains[0].name);
      setInterval(() => {}, 1000);`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`));
    const name = await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    expect(name).toBe('package-0');
    expect(native().samplerCost().sources).toBe(1);
    await worker.terminate();
    await until(() => native().samplerCost().sources === 0);
  });

  test.each(['', 'process.exit(0)', 'void meter.end(meter.begin())'])(
    'a process ends with a meter open; last words %j',
    async (words) => {
      const root = tree(zone('intel-rapl:0', 'package-0'));
      const script = `import { openMeter } from ${JSON.stringify(dist)};
        const meter = await openMeter({ sysfs: ${JSON.stringify(root)} });
        console.log(meter.domains[0].name);
        ${words}`;
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
      expect(stdout).toBe('package-0\n');
    },
  );
});

test('hours of readings take little memory and keep their sum', async () => {
  const root = tree(zone('intel-rapl:0', 'package-0'));
  const path = 'class/powercap/intel-rapl:0/energy_uj';
  const meter = await openMeter({ sysfs: root, manual: true, intervalSeconds: 0.1 });
  // 50 W, each reading a change.
  const polls = 20_000;
  let reading: ReturnType<typeof meter.end> | undefined;
  for (let i = 0; i <= polls; i++) {
    write(root, path, `${5e6 * i}`);
    meter.pollOnce(i / 10);
    if (i === polls - 100) reading = meter.end({ seconds: 100 });
  }
  const [{ data, thinnedBefore }] = (await meter.recording({ begin: 0, end: polls / 10 })) as [DomainRecording];
  const { seconds, values } = data.counter;
  // The newest 8192 are whole, of the others every fourth is there.
  expect(seconds.length).toBeLessThan(8192 + polls / 4);
  expect(thinnedBefore).toBeCloseTo(polls / 10 - 819.2, 0);
  expect(values[values.length - 1]).toBeCloseTo(5 * polls, 3);
  expect(values[0]).toBeLessThan(50);
  for (let i = 1; i < seconds.length; i++) {
    const step = seconds[i]! - seconds[i - 1]!;
    expect(step).toBeGreaterThan(0);
    expect(step).toBeLessThan(seconds[i]! < thinnedBefore ? 0.41 : 0.11);
  }
  const { domains } = await reading!;
  const truth = 50 * (polls / 10 - 10 - 100);
  // A step is taken to lie in the middle between its readings, of which one in four is left at the beginning.
  expect(Math.abs(domains[0]!.joules.value! - truth)).toBeLessThan(50 * 0.25);
  expect(domains[0]!.bounds![1] - domains[0]!.bounds![0]).toBeLessThan(100);
  await meter.close();
});
