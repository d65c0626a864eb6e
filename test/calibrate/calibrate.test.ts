// calibrate(): ceilings of this machine, costs against a simulated truth, what is kept, and what is refused. And the cache by itself.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  cacheFolder,
  calibrationFile,
  identify,
  readCalibration,
  writeCalibration,
} from '../../src/calibrate/cache.js';
import type { Calibration } from '../../src/calibrate/calibration.js';
import { useCalibration } from '../../src/calibrate/costs.js';
import { calibrate, type Device, gemm, measure, openDevice } from '../../src/index.js';
import { missing } from '../../src/measure/quantity.js';
import { madeUpMeter } from '../measure/meter.js';
import { watchEnergy } from './simulated.js';

let device: Device;
let folder: string;
beforeAll(async () => {
  device = await openDevice('cpu');
  folder = mkdtempSync(join(tmpdir(), 'kernwatt-calibrate-'));
});
afterAll(async () => {
  await device.close();
  rmSync(folder, { recursive: true });
});
afterEach(() => vi.restoreAllMocks());

const hasDot = () => /bf16$/.test(device.info.isa ?? '');

describe('costs', () => {
  const truth = { constantW: 25, fma_f32: 9e-11, dot_bf16: 6e-11, bytes: 8e-10 };
  let calibration: Calibration;

  test('are those of a simulated processor, whatever the machine does meanwhile', async () => {
    const meter = madeUpMeter({ truth: watchEnergy(truth, hasDot()), tickSeconds: 2e-3 });
    const phases = new Set<string>();
    const result = await calibrate(device, {
      quick: true,
      cache: join(folder, 'costs'),
      energy: { meter, windows: 2, windowSeconds: 0.25, idleSeconds: 0.1 },
      onProgress: ({ phase }) => phases.add(phase),
    });
    expect(result).toMatchObject({ cached: false, notes: [] });
    calibration = result.calibration;
    const { joulesPerFlop, joulesPerByte, constantW, fit, loads, includes } = calibration.energy;
    // A neighbour that takes the processor in a window bends its line by some percent; taking one cost for another does more.
    const close = ({ value }: { value: number | null }, right: number) => {
      expect(value! / right).toBeGreaterThan(0.8);
      expect(value! / right).toBeLessThan(1.2);
    };
    close(joulesPerFlop.fma_f32, truth.fma_f32);
    close(joulesPerByte, truth.bytes);
    close(constantW, truth.constantW);
    if (hasDot()) close(joulesPerFlop.dot_bf16, truth.dot_bf16);
    expect(joulesPerFlop.dot_f16).toEqual(missing('J/FLOP', 'no load of dot_f16 was metered'));
    expect(fit!.residual).toBeLessThan(0.1);
    expect(loads.map(({ name }) => name)).toEqual(expect.arrayContaining(['spin', 'read', 'read, half', 'fma_f32']));
    expect(loads.every(({ windows, watts }) => windows === 2 && watts > truth.constantW * 0.9)).toBe(true);
    expect(includes).toEqual(['a made-up board']);
    expect([...phases]).toEqual(['peaks', 'energy']);
  }, 120_000);

  test('give measure() its energy roofline, labelled with the calibration and with an interval', async () => {
    useCalibration(device, calibration);
    const [x, w] = [device.random([128, 256]), device.random([256, 256])];
    using plan = gemm.bind({ x, w });
    const meter = madeUpMeter({ watts: 60 });
    const record = await measure(plan, {
      quick: true,
      maxSeconds: 0.3,
      clocks: ['device'],
      energy: { meter, windows: 2, windowSeconds: 0.2, idleSeconds: 0.1 },
    });
    const { energyFloorJ, energyEfficiency, floorSeconds } = record.roofline!;
    expect(energyFloorJ).toMatchObject({
      state: 'ok',
      basis: expect.stringContaining(
        `calibration ${calibration.id.slice(0, 8)} of ${calibration.createdAt.slice(0, 10)}`,
      ),
      ci95: [expect.any(Number), expect.any(Number)],
    });
    const { joulesPerFlop, joulesPerByte, constantW } = calibration.energy;
    const { flops, minBytes } = record.work;
    const bytes = record.time!.cache === 'cold' ? minBytes! : 0;
    expect(energyFloorJ.value).toBeCloseTo(
      flops! * joulesPerFlop.fma_f32.value! + bytes * joulesPerByte.value! + constantW.value! * floorSeconds,
      12,
    );
    expect(energyEfficiency.value).toBeCloseTo(energyFloorJ.value! / record.energy.perCallJ.value!, 9);
  }, 60_000);
});

describe('what is kept', () => {
  const options = () => ({ quick: true, energy: false, cache: join(folder, 'kept') }) as const;

  test('a second run takes it from the cache, --force renews it, another device has its own', async () => {
    const first = await calibrate(device, options());
    expect(first.calibration).toMatchObject({
      schema: 'kernwatt.calibration/1',
      identity: { kind: 'cpu', isa: device.info.isa, threads: device.info.threads },
      energy: { constantW: { value: null, reason: 'energy was left out of this calibration' }, fit: null, loads: [] },
    });
    expect(first.calibration.peaks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['read', 'copy', 'fma_f32']),
    );
    expect(first.calibration.missing.map(({ name }) => name)).toContain('dot_f16');
    const second = await calibrate(device, options());
    expect(second).toEqual({ ...first, cached: true });
    const third = await calibrate(device, { ...options(), force: true });
    expect(third.cached).toBe(false);
    expect(third.calibration.id).not.toBe(first.calibration.id);
    await using one = await openDevice('cpu', { threads: 1 });
    expect(calibrationFile(folder, await identify(one))).not.toBe(calibrationFile(folder, await identify(device)));
    expect(readdirSync(options().cache)).toHaveLength(1);
  }, 60_000);

  test('files that are damaged, foreign or of another time are ignored with a note and replaced', async () => {
    const cache = join(folder, 'damaged');
    const identity = await identify(device);
    const file = calibrationFile(cache, identity);
    const good = readFileSync(calibrationFile(options().cache, identity), 'utf8');
    const whole = JSON.parse(good) as Calibration;
    mkdirSync(cache);
    for (const [text, why] of [
      ['', 'it is not JSON'],
      [good.slice(0, 200), 'it is not JSON'],
      ['null', 'its schema is not kernwatt.calibration/1'],
      [JSON.stringify({ ...whole, schema: 'kernwatt.calibration/0' }), 'its schema is not kernwatt.calibration/1'],
      [JSON.stringify({ ...whole, energy: {} }), 'parts of it are missing'],
      [
        JSON.stringify({ ...whole, identity: { ...whole.identity, version: '0.0.1' } }),
        'it is of another device, limit or version',
      ],
    ] as const) {
      writeFileSync(file, text);
      expect(readCalibration(identity, cache)).toEqual({ calibration: null, note: `${file} was ignored: ${why}` });
    }
    const renewed = await calibrate(device, { ...options(), cache });
    expect(renewed.notes).toEqual([`${file} was ignored: it is of another device, limit or version`]);
    expect(readCalibration(identity, cache).calibration).toEqual(renewed.calibration);
    writeFileSync(file, good);
    expect(readCalibration(identity, cache).note).toBeNull();
  }, 60_000);

  test('a folder that cannot be written is a note, no folder none at all, and nothing half-written stays', async () => {
    const whole = readCalibration(await identify(device), options().cache).calibration!;
    const blocked = join(folder, 'file');
    writeFileSync(blocked, '');
    const inside = join(blocked, 'kernwatt');
    expect(writeCalibration(whole, inside)).toEqual({
      file: null,
      note: expect.stringMatching(/^not cached: .* cannot be written \(E[A-Z]+\)$/),
    });
    expect(readCalibration(whole.identity, inside)).toEqual({ calibration: null, note: null });
    expect(writeCalibration(whole, null).note).toContain('no folder for caches');
    // A folder in the place of the file: renaming fails after the draft has been written.
    const taken = join(folder, 'taken');
    mkdirSync(calibrationFile(taken, whole.identity), { recursive: true });
    expect(writeCalibration(whole, taken).file).toBeNull();
    expect(readdirSync(taken)).toHaveLength(1);
    expect(readCalibration(whole.identity, taken).note).toContain('it cannot be read (EISDIR)');
    expect(existsSync(join(folder, 'none'))).toBe(false);
  });
});

test('the folder follows XDG_CACHE_HOME, else the system', () => {
  const home = { HOME: '/home/me', LOCALAPPDATA: 'C:\\me\\AppData\\Local' };
  expect(cacheFolder({ ...home, XDG_CACHE_HOME: '/tmp/c' }, 'linux')).toBe('/tmp/c/kernwatt');
  expect(cacheFolder({ ...home, XDG_CACHE_HOME: 'relative' }, 'linux')).toBe('/home/me/.cache/kernwatt');
  expect(cacheFolder(home, 'darwin')).toBe('/home/me/Library/Caches/kernwatt');
  expect(cacheFolder(home, 'win32')).toContain('AppData');
  expect(cacheFolder({}, 'win32')).toBeNull();
});

describe('refused or given up:', () => {
  test('options that make no sense', async () => {
    const refused = (message: string) =>
      expect.objectContaining({ code: 'ERR_KERNWATT_ARGUMENT', message: `calibrate: ${message}` });
    await expect(calibrate(device, { windows: 3 } as never)).rejects.toThrow(
      refused('windows is not an option, expected force, quick, energy, cache, signal, onProgress'),
    );
    await expect(calibrate(device, { cache: '' })).rejects.toThrow(refused('cache is , expected a folder or null'));
    await expect(calibrate(device, { energy: { windows: 0 } })).rejects.toThrow(
      refused('energy.windows is 0, expected a whole number from 1 to 1000'),
    );
  });

  test('an aborted run keeps nothing', async () => {
    const cache = join(folder, 'aborted');
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(calibrate(device, { quick: true, cache, signal })).rejects.toThrow('enough');
    expect(existsSync(cache)).toBe(false);
  });

  test('a meter without a counter costs the costs alone, and no load runs for it', async () => {
    const [domain] = madeUpMeter().domains;
    const meter = {
      domains: [{ ...domain!, state: 'denied' as const, reason: 'root only' }],
      recording: () => Promise.reject(new Error('never asked')),
    };
    const { calibration } = await calibrate(device, { quick: true, cache: null, energy: { meter } });
    expect(calibration.energy).toMatchObject({
      constantW: { value: null, state: 'denied', reason: expect.stringContaining('root only') },
      joulesPerFlop: { fma_f32: { value: null, unit: 'J/FLOP' } },
      unread: [{ name: 'gpu:0', state: 'denied' }],
      loads: [],
    });
    expect(calibration.peaks.length).toBeGreaterThan(2);
  }, 60_000);
});
