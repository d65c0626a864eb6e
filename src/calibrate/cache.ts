// Calibrations on disk: one JSON file for each device identity in the user's cache folder. Reading and writing never fail a run:
// what cannot be used is left alone and named in a note.
import { createHash, randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import type { Device } from '../device.js';
import { describeTool } from '../measure/environment.js';
import { gpuFacts } from '../measure/gpu_facts.js';
import { type Calibration, calibrationSchema } from './calibration.js';

/** What a calibration holds for: the same board under the same limit, or the same processor used alike. */
export type Identity = Readonly<Record<string, string | number | null>>;

/** What a device is to its calibration, with the version of this package, whose loads it was made with. */
export async function identify(device: Device): Promise<Identity> {
  const { kind, info } = device;
  const { version } = describeTool();
  if (kind === 'cpu') return { kind, model: info.name, isa: info.isa, threads: info.threads, version };
  const facts = await gpuFacts(device);
  const driver = facts?.driver ?? info.driverVersion;
  return { kind, model: info.name, uuid: info.uuid, driver, powerLimitW: facts?.powerLimitW.enforced ?? null, version };
}

/** `XDG_CACHE_HOME`, else what the system uses; null where there is no home. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env, platform = process.platform): string | null {
  const given = env.XDG_CACHE_HOME;
  // The specification wants relative ones ignored.
  if (given && isAbsolute(given)) return join(given, 'kernwatt');
  if (platform === 'win32') return env.LOCALAPPDATA ? join(env.LOCALAPPDATA, 'kernwatt', 'Cache') : null;
  const home = env.HOME || homeOrNull();
  if (!home) return null;
  return platform === 'darwin' ? join(home, 'Library', 'Caches', 'kernwatt') : join(home, '.cache', 'kernwatt');
}

function homeOrNull(): string | null {
  try {
    return homedir();
  } catch {
    return null;
  }
}

const keyOf = (identity: Identity): string => JSON.stringify(Object.entries(identity).sort());

/** The file of an identity. */
export function calibrationFile(folder: string, identity: Identity): string {
  const hash = createHash('sha256').update(keyOf(identity)).digest('hex').slice(0, 16);
  return join(folder, `calibration-${identity.kind}-${hash}.json`);
}

export interface Cached {
  calibration: Calibration | null;
  /** Why a file that is there was not used; null where there is none or it was. */
  note: string | null;
}

/** The calibration of this identity, if there is one that can be trusted to be whole. */
export function readCalibration(identity: Identity, folder = cacheFolder()): Cached {
  if (folder === null) return { calibration: null, note: null };
  const file = calibrationFile(folder, identity);
  const ignored = (why: string): Cached => ({ calibration: null, note: `${file} was ignored: ${why}` });
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' || code === 'ENOTDIR'
      ? { calibration: null, note: null }
      : ignored(`it cannot be read (${code})`);
  }
  let found: Partial<Calibration> | null;
  try {
    found = JSON.parse(text) as Partial<Calibration> | null;
  } catch {
    return ignored('it is not JSON');
  }
  if (found?.schema !== calibrationSchema) return ignored(`its schema is not ${calibrationSchema}`);
  const { identity: of, peaks, energy, id, createdAt } = found;
  const whole =
    typeof id === 'string' &&
    typeof createdAt === 'string' &&
    Array.isArray(peaks) &&
    typeof energy === 'object' &&
    energy !== null &&
    ['joulesPerFlop', 'joulesPerByte', 'constantW'].every((name) => typeof energy[name as 'constantW'] === 'object');
  if (!whole) return ignored('parts of it are missing');
  if (of === undefined || keyOf(of) !== keyOf(identity)) return ignored('it is of another device, limit or version');
  return { calibration: found as Calibration, note: null };
}

/** Writes it whole or not at all. @returns the file, or why there is none. */
export function writeCalibration(
  calibration: Calibration,
  folder = cacheFolder(),
): { file: string; note: null } | { file: null; note: string } {
  if (folder === null) return { file: null, note: 'not cached: this user has no folder for caches' };
  const file = calibrationFile(folder, calibration.identity);
  // In the same folder, so that renaming it does not copy; of this process alone, so that two may write at a time.
  const draft = `${file}.${randomUUID()}`;
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(draft, `${JSON.stringify(calibration, null, 2)}\n`, { flag: 'wx' });
    renameSync(draft, file);
    return { file, note: null };
  } catch (error) {
    try {
      rmSync(draft, { force: true });
    } catch {
      // Where it cannot be removed it was never written.
    }
    return { file: null, note: `not cached: ${file} cannot be written (${(error as NodeJS.ErrnoException).code})` };
  }
}
