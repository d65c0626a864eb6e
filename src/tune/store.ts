// Decisions of tune() on disk and in use: one JSON file for each problem, in a folder for each device. A file is written whole
// or not at all and holds one decision, so that any number of processes may read and write at a time. What cannot be used is
// left alone and named, never an error.
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cacheFolder, type Identity, identify } from '../calibrate/cache.js';
import type { Device } from '../device.js';
import { addonFile } from '../native.js';

const decisionSchema = 'kernwatt.tuned/1';

/** What was measured for one problem, as it is kept: schema kernwatt.tuned/1. */
export interface Decision {
  schema: typeof decisionSchema;
  createdAt: string;
  /** Of the device, its driver, and the code of the kernels. */
  identity: Identity;
  op: string;
  /** Operands, layouts and parameters in words. */
  problem: string;
  /** What was fastest with confidence, and what the backend takes by itself: the same where nothing was faster than that. */
  configuration: string;
  chosen: string;
  /** How many times as fast as `chosen`, with the 95 % interval; null where they are the same. */
  speedup: { value: number; ci95: readonly [number, number] } | null;
  /** How many configurations were measured, that one included. */
  measured: number;
  cache: string;
}

/** A file that was there and is not used: it could not be read, is no decision, is of another version, or of another device. */
export interface IgnoredFile {
  file: string;
  why: 'unreadable' | 'corrupt' | 'schema' | 'device';
  reason: string;
}

/** What `plan.explain()` says of measured configurations, on a device that was opened with `tuned`. */
export interface TunedFact {
  /**
   * `used`: the configuration that was measured to be faster. `kept`: nothing was faster than the backend's own. `unmeasured`: nobody has
   * measured this problem. `ignored`: somebody has, but the file is not used. `declined`: the backend does not take what was measured.
   */
  state: 'used' | 'kept' | 'unmeasured' | 'ignored' | 'declined';
  reason: string;
}

const hashOf = (text: string | Buffer): string => createHash('sha256').update(text).digest('hex').slice(0, 16);

/** The device with what runs on it: kernels that have changed may be fast in other ways. */
async function identityOf(device: Device): Promise<Identity> {
  const code = hashOf(await readFile(device.info.library?.path ?? addonFile()));
  return { ...(await identify(device)), code };
}

/** Where decisions for a device lie; another driver, limit or build finds the same folder, and says what is foreign. */
function folderOf(base: string, { kind, model, uuid = null, isa = null, threads = null }: Identity): string {
  return join(base, 'tuned', `${kind}-${hashOf(JSON.stringify([model, uuid, isa, threads]))}`);
}

const fileOf = (op: string, problem: string): string => `${op}-${hashOf(problem)}.json`;

const ratio = (value: number): string => `${value.toFixed(2)}x`;

function factOf({ configuration, chosen, speedup, measured, createdAt }: Decision): TunedFact {
  const date = createdAt.slice(0, 10);
  if (speedup === null)
    return {
      state: 'kept',
      reason: `measured ${measured} configurations: none beats the chooser's ${chosen}, ${date}`,
    };
  const [low, high] = speedup.ci95.map(ratio);
  return {
    state: 'used',
    reason: `tuned: ${configuration} measured ${ratio(speedup.value)} over the chooser's ${chosen} (95 % CI ${low} to ${high}), ${date}`,
  };
}

/** Configurations that were measured on a device, as `openDevice` found them and with those measured since. */
export class Tuned {
  readonly #identity: Identity;
  readonly #decisions = new Map<string, Decision>();
  readonly #ignored = new Map<string, IgnoredFile>();

  /** @internal @param folder of this device; null: nothing is kept. */
  constructor(
    readonly folder: string | null,
    identity: Identity,
  ) {
    this.#identity = identity;
  }

  /** What is in use. */
  get decisions(): readonly Decision[] {
    return [...this.#decisions.values()];
  }

  /** Files that were there and are not. */
  get ignored(): readonly IgnoredFile[] {
    return [...this.#ignored.values()];
  }

  /** @internal The configuration to take for a problem, undefined for the backend's own, and what to say of it. */
  find(op: string, problem: string): { configuration: string | undefined; fact: TunedFact } {
    const decision = this.#decisions.get(problem);
    if (decision)
      return { configuration: decision.speedup ? decision.configuration : undefined, fact: factOf(decision) };
    const ignored = this.#ignored.get(fileOf(op, problem));
    const fact: TunedFact = ignored
      ? { state: 'ignored', reason: `${ignored.file} was ignored: ${ignored.reason}` }
      : { state: 'unmeasured', reason: `nobody has measured this problem on this device: await ${op}.tune(args) does` };
    return { configuration: undefined, fact };
  }

  /** @internal Reads one file of the folder. */
  async load(name: string): Promise<void> {
    const file = join(this.folder!, name);
    const ignore = (why: IgnoredFile['why'], reason: string) => void this.#ignored.set(name, { file, why, reason });
    let text: string;
    try {
      text = await readFile(file, 'utf8');
    } catch (error) {
      return ignore('unreadable', `it cannot be read (${(error as NodeJS.ErrnoException).code})`);
    }
    let found: Partial<Decision> | null;
    try {
      found = JSON.parse(text) as Partial<Decision> | null;
    } catch {
      return ignore('corrupt', 'it is not JSON');
    }
    if (found?.schema !== decisionSchema) return ignore('schema', `its schema is not ${decisionSchema}`);
    if (!isWhole(found) || name !== fileOf(found.op, found.problem))
      return ignore('corrupt', 'parts of it are missing or wrong');
    const { identity } = found;
    const other = [...new Set([...Object.keys(this.#identity), ...Object.keys(identity)])].filter(
      (key) => identity[key] !== this.#identity[key],
    );
    if (other.length > 0) {
      const differs = other.map(
        (key) => `${key} ${identity[key] ?? 'unknown'}, here ${this.#identity[key] ?? 'unknown'}`,
      );
      return ignore('device', `it was measured with ${differs.join('; ')}`);
    }
    this.#decisions.set(found.problem, found);
  }

  /** @internal Uses a decision from now on, and keeps it. @returns the file, or why there is none. */
  async keep(
    what: Omit<Decision, 'schema' | 'identity'>,
  ): Promise<{ file: string; note: null } | { file: null; note: string }> {
    const decision: Decision = { schema: decisionSchema, ...what, identity: this.#identity };
    this.#decisions.set(decision.problem, decision);
    if (this.folder === null) return { file: null, note: 'not kept: there is no folder for it' };
    const name = fileOf(decision.op, decision.problem);
    const file = join(this.folder, name);
    // In the same folder, so that renaming it does not copy; with a name of its own, so that several may write at a time.
    const draft = `${file}.${randomUUID()}`;
    try {
      await mkdir(this.folder, { recursive: true });
      await writeFile(draft, `${JSON.stringify(decision, null, 2)}\n`, { flag: 'wx' });
      await rename(draft, file);
      this.#ignored.delete(name);
      return { file, note: null };
    } catch (error) {
      await rm(draft, { force: true }).catch(() => undefined); // where it cannot be removed it was never written
      return { file: null, note: `not kept: ${file} cannot be written (${(error as NodeJS.ErrnoException).code})` };
    }
  }
}

function isWhole(found: Partial<Decision>): found is Decision {
  const { createdAt, identity, op, problem, configuration, chosen, speedup, measured } = found;
  const texts = [createdAt, op, problem, configuration, chosen].every(
    (text) => typeof text === 'string' && text !== '',
  );
  const positive = (value: unknown) => typeof value === 'number' && value > 0;
  const known =
    speedup === null
      ? configuration === chosen
      : positive(speedup?.value) &&
        Array.isArray(speedup?.ci95) &&
        speedup.ci95.length === 2 &&
        speedup.ci95.every(positive);
  return texts && known && positive(measured) && typeof identity === 'object' && identity !== null;
}

/** What is kept for a device. @param base folder of the cache; undefined: the user's; null: none. */
export async function openTuned(device: Device, base: string | null = cacheFolder()): Promise<Tuned> {
  const identity = await identityOf(device);
  const tuned = new Tuned(base === null ? null : folderOf(base, identity), identity);
  if (tuned.folder === null) return tuned;
  let names: string[] = [];
  try {
    names = await readdir(tuned.folder);
  } catch {
    // Nothing has been measured for this device, or nobody may read it: then every problem is unmeasured.
  }
  await Promise.all(names.filter((name) => name.endsWith('.json')).map((name) => tuned.load(name)));
  return tuned;
}
