// calibrate(): measured ceilings of a device and, where a meter reads energy, what an operation, a byte and a second cost.
import { randomUUID } from 'node:crypto';
import type { Device } from '../device.js';
import { KernwattError } from '../errors.js';
import { type EnergyObservation, type Metered, type Unmetered, unmetered } from '../measure/energy.js';
import { gpuFacts } from '../measure/gpu_facts.js';
import { type Load, type LoadName, loadNames, makeLoad } from '../measure/loads.js';
import { meterEnergy, unreadable } from '../measure/metering.js';
import { type EnergyMeter, type EnergyOptions, type EnergySettings, energySettings } from '../measure/options.js';
import { type Peak, peakOf, specPeaks } from '../measure/peaks.js';
import { missing, type Quantity } from '../measure/quantity.js';
import { mean } from '../measure/stats.js';
import { type Subject, subject } from '../measure/subject.js';
import { openMeter } from '../meter/meter.js';
import { openDevice } from '../open.js';
import { cacheFolder, calibrationFile, identify, readCalibration, writeCalibration } from './cache.js';
import {
  type Calibration,
  calibrationSchema,
  type EnergyCosts,
  type MeteredLoad,
  type Multiplier,
  multipliers,
} from './calibration.js';
import { useCalibration } from './costs.js';
import { type CostWindow, fitCosts } from './fit.js';

export interface CalibrateOptions {
  /** Measures again although there is a calibration of this device. */
  force?: boolean;
  /** Shorter and with wider intervals. */
  quick?: boolean;
  /** Windows and meter, as for measure(). false: ceilings alone. */
  energy?: false | EnergyOptions;
  /** Folder of the cache; null: none. Default: `kernwatt` in the user's cache folder. */
  cache?: string | null;
  signal?: AbortSignal;
  onProgress?: (progress: { phase: 'peaks' | 'energy'; name: string; done: number }) => void;
}

/** A calibration and where it is. */
export interface CalibrationResult {
  calibration: Calibration;
  /** Whether it was there already. */
  cached: boolean;
  /** Where it is kept; null where it could not be. */
  file: string | null;
  notes: string[];
}

/** Seconds for each ceiling. */
const peakSeconds = { full: 1, quick: 0.3 };
/** Loads run at full and at half intensity, so that it shows whether power follows from rates at all. */
const shares = [1, 0.5];

/** src/later.ts says what it does. */
export async function calibrate(given?: Device, options: CalibrateOptions = {}): Promise<CalibrationResult> {
  checkOptions(options);
  const device = given ?? (await openDevice());
  try {
    if (device.info.emulated)
      throw new KernwattError(
        'UNSUPPORTED',
        `calibrate: device is ${device.name}, expected one that is not emulated: emulated kernels are never fast or slow`,
      );
    return await calibrateDevice(device, options);
  } finally {
    if (given === undefined) await device.close();
  }
}

const optionNames = ['force', 'quick', 'energy', 'cache', 'signal', 'onProgress'];

function checkOptions(options: CalibrateOptions): void {
  for (const name of Object.keys(options))
    if (!optionNames.includes(name))
      throw new KernwattError('ARGUMENT', `calibrate: ${name} is not an option, expected ${optionNames.join(', ')}`);
  const { cache } = options;
  if (cache !== undefined && cache !== null && (typeof cache !== 'string' || cache === ''))
    refuse('cache', cache, 'a folder or null');
}

function refuse(name: string, value: unknown, expected: string): never {
  throw new KernwattError('ARGUMENT', `calibrate: ${name} is ${String(value)}, expected ${expected}`);
}

async function calibrateDevice(device: Device, options: CalibrateOptions): Promise<CalibrationResult> {
  const { force = false, quick = false, signal, onProgress } = options;
  const cache = options.cache === undefined ? cacheFolder() : options.cache;
  const energy = energySettings(options.energy ?? true, quick, refuse);
  const identity = await identify(device);
  const before = readCalibration(identity, cache);
  const notes = before.note === null ? [] : [before.note];
  if (before.calibration && !force) {
    useCalibration(device, before.calibration);
    const file = calibrationFile(cache!, identity);
    return { calibration: before.calibration, cached: true, file, notes };
  }
  const peaks: Peak[] = [];
  const absent: Calibration['missing'] = [];
  const measured = loadNames.filter((name) => name !== 'spin');
  for (const [i, name] of measured.entries()) {
    signal?.throwIfAborted();
    onProgress?.({ phase: 'peaks', name, done: i / measured.length });
    const peak = await peakOf(device, name, quick ? peakSeconds.quick : peakSeconds.full, true);
    if ('provenance' in peak) peaks.push(peak);
    else absent.push({ name, reason: peak.reason });
  }
  const calibration: Calibration = {
    schema: calibrationSchema,
    id: randomUUID(),
    createdAt: new Date().toISOString(),
    identity,
    device: { name: device.name, product: device.info.name },
    peaks: [...peaks, ...specPeaks(device)],
    missing: absent,
    energy: await energyCosts(
      device,
      peaks.map(({ name }) => name as LoadName),
      energy,
      options,
    ),
  };
  useCalibration(device, calibration);
  const written = writeCalibration(calibration, cache);
  if (written.note !== null) notes.push(written.note);
  return { calibration, cached: false, file: written.file, notes };
}

interface Metering {
  load: Load;
  /** Loads of one name replicate each other. */
  name: string;
  subject: Subject;
}

/** Costs of energy, or why they are not known; then no load is run. */
async function energyCosts(
  device: Device,
  names: readonly LoadName[],
  energy: EnergySettings | null,
  options: CalibrateOptions,
): Promise<EnergyCosts> {
  if (energy === null) return noCosts(unmetered('energy was left out of this calibration'));
  if (energy.meter) return meterCosts(device, names, energy, energy.meter, options);
  await using meter = await openMeter({ device });
  return await meterCosts(device, names, energy, meter, options);
}

async function meterCosts(
  device: Device,
  names: readonly LoadName[],
  energy: EnergySettings,
  meter: EnergyMeter,
  { signal, onProgress }: CalibrateOptions,
): Promise<EnergyCosts> {
  const failed = unreadable(meter);
  if (failed) return noCosts(failed);
  const loads: Metering[] = [];
  // Memory of its own, so that the caller's counts nothing of it.
  await using own = await device.another();
  try {
    for (const { name, share } of [
      { name: 'spin' as const, share: 1 },
      ...names.flatMap((one) => shares.map((part) => ({ name: one, share: part }))),
    ]) {
      signal?.throwIfAborted();
      const load = await makeLoad(own, name, { share, parts: 1 });
      const it = await subject(load.plans[0]!, {
        cache: isMemory(name) ? 'cold' : 'hot',
        coldLimitBytes: 2 * (device.info.lastLevelCacheBytes ?? 2 ** 28),
        check: share === 1 ? { seconds: 0.2, seed: 1 } : null,
      });
      loads.push({ load, subject: it, name: share === 1 ? name : `${name}, half` });
      const { state, reason } = await it.before();
      if (state === 'failed')
        throw new KernwattError('INTERNAL', `calibrate: ${name} on ${device.name} is wrong: ${reason}`);
    }
    const subjects = loads.map((one) => one.subject);
    const gpu = await gpuFacts(device);
    const seen = await meterEnergy(subjects, { energy: { ...energy, meter }, seed: 1, signal }, gpu, (done) =>
      onProgress?.({ phase: 'energy', name: `${subjects.length} loads`, done }),
    );
    return costsOf(loads, seen);
  } finally {
    for (const { subject: it, load } of loads) {
      await it[Symbol.asyncDispose]();
      load[Symbol.dispose]();
    }
  }
}

const isMemory = (name: LoadName): boolean => name === 'read' || name === 'copy';

const units = {
  ...(Object.fromEntries(multipliers.map((name) => [name, 'FLOP'])) as Record<Multiplier, string>),
  bytes: 'B',
};

function noCosts({ absent: { state, reason }, unread }: Unmetered): EnergyCosts {
  const none = (unit: string): Quantity => missing(unit, reason, state);
  return {
    joulesPerFlop: Object.fromEntries(
      multipliers.map((name) => [name, none('J/FLOP')]),
    ) as EnergyCosts['joulesPerFlop'],
    joulesPerByte: none('J/B'),
    constantW: none('W'),
    fit: null,
    loads: [],
    includes: [],
    caveats: [],
    unread: [...unread],
  };
}

function costsOf(loads: readonly Metering[], seen: readonly EnergyObservation[]): EnergyCosts {
  const refused = seen.find((one) => 'absent' in one);
  if (refused) return noCosts(refused as Unmetered);
  const metered = seen as Metered[];
  const windows = loads.map((load, i) => costWindows(load, metered[i]!));
  const { costs, constantW, ...fit } = fitCosts(windows.flat(), units);
  const { bytes, ...joulesPerFlop } = costs;
  return {
    joulesPerFlop: joulesPerFlop as EnergyCosts['joulesPerFlop'],
    joulesPerByte: bytes!,
    constantW,
    fit,
    loads: loads.flatMap(({ name }, i): MeteredLoad[] => {
      const of = windows[i]!;
      const rate = (what: (rates: CostWindow['rates']) => number) => mean(of.map(({ rates }) => what(rates)));
      if (of.length === 0) return [];
      return [
        {
          name,
          windows: of.length,
          watts: mean(of.map(({ watts }) => watts)),
          flopsPerSecond: rate((rates) => multipliers.reduce((sum, kind) => sum + (rates[kind] ?? 0), 0)),
          bytesPerSecond: rate((rates) => rates.bytes ?? 0),
        },
      ];
    }),
    includes: [...metered[0]!.covers],
    caveats: [...new Set(metered.flatMap(({ domains }) => domains.flatMap(caveatsOf)))],
    unread: [...metered[0]!.unread],
  };
}

/** Why what a counter said may not be the energy of the loads. */
function caveatsOf({ name, disputed, steady, attributable }: Metered['domains'][number]): string[] {
  const reasons = [
    ...(disputed.value === true ? disputed.reasons : []),
    ...(steady.value === false ? steady.reasons : []),
    ...(attributable.value === false ? attributable.reasons : []),
  ];
  return reasons.map((reason) => `${name}: ${reason}`);
}

/** Power and rates of each window in which every counter could be read. */
function costWindows({ load, name }: Metering, { windows, domains }: Metered): CostWindow[] {
  const kind = isMemory(load.name) || load.name === 'spin' ? 'fma_f32' : load.name;
  return windows.flatMap(({ begin, end, iterations }): CostWindow[] => {
    const read = domains.map((domain) => domain.windows.find((one) => one.begin === begin));
    if (read.some((one) => one === undefined)) return [];
    const perSecond = iterations / (end - begin);
    return [
      {
        load: name,
        watts: read.reduce((sum, one) => sum + one!.powerW, 0),
        rates: { [kind]: load.flops * perSecond, bytes: load.bytes * perSecond },
      },
    ];
  });
}
