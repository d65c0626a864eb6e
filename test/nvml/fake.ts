// Builds the fake NVML (fake_nvml.cc) and drives it: a scenario on virtual or real time, and the true energy to compare with.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const here = import.meta.dirname;
const folder = join(resolve(here, '../..'), '.build/test/nvml');
const run = promisify(execFile);
const env = { ...process.env, LD_PRELOAD: '' };

const older = (file: string, inputs: string[]) =>
  !existsSync(file) || inputs.some((input) => statSync(file).mtimeMs < statSync(input).mtimeMs);

/** Several test files may build at once: each writes a file of its own and moves it into place. */
async function make(file: string, args: string[]): Promise<void> {
  const made = `${file}.${process.pid}`;
  await run('g++', [...args, '-o', made], { env });
  renameSync(made, file);
}

let objects: Promise<string[]> | undefined;

async function compile(): Promise<string[]> {
  mkdirSync(folder, { recursive: true });
  const names = readdirSync(here);
  const headers = names.filter((name) => name.endsWith('.h')).map((name) => join(here, name));
  const sources = names.filter((name) => name.endsWith('.cc'));
  const flags = [
    '-std=c++20',
    '-O1',
    '-g',
    '-fPIC',
    '-fvisibility=hidden',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-Wno-missing-field-initializers',
  ];
  const waiting = [...sources];
  const worker = async () => {
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
      const object = join(folder, `${name}.o`);
      if (older(object, [join(here, name), ...headers])) await make(object, [...flags, '-c', join(here, name)]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, worker));
  return sources.map((name) => join(folder, `${name}.o`));
}

/** Path of the library, compiled once; dlsym() does not find the functions named in `missing`. */
export async function buildFake(missing: readonly string[] = []): Promise<string> {
  objects ??= compile();
  const inputs = await objects;
  const key = createHash('sha256').update(missing.join()).digest('hex').slice(0, 12);
  const library = join(folder, missing.length > 0 ? `libfake_nvml-${key}.so` : 'libfake_nvml.so');
  if (older(library, inputs)) {
    const script = `${library}.${process.pid}.map`;
    writeFileSync(script, `{ global: nvml*; local: ${missing.map((name) => `${name}; `).join('')}*; };\n`);
    await make(library, ['-shared', ...inputs, `-Wl,--version-script=${script}`, '-lpthread']);
    rmSync(script);
  }
  return library;
}

/** A level, or `[from second, level]` steps. */
export type Curve = number | readonly (readonly [seconds: number, level: number])[];

/** Keys of test/nvml/scenario.h, where each is described; those with a type of their own are written here. */
export interface Scenario {
  /** Seconds at which virtual time begins; without it the clock is CLOCK_MONOTONIC and counters start now. */
  now?: number;
  power?: Curve;
  /** The curves repeat after so many seconds. */
  period?: number;
  clock?: Curve;
  memory_clock?: Curve;
  temperature?: Curve;
  memory_temperature?: Curve;
  utilisation?: Curve;
  memory_utilisation?: Curve;
  memory_used?: Curve;
  throttle?: readonly (readonly [reason: string, from: number, to: number])[];
  processes?: readonly (readonly [pid: number, bytes: number | null])[];
  gpm?: Readonly<Record<number, number>>;
  /** Functions that the library does not have at all. Only when it starts. */
  missing?: readonly string[];
  deny?: readonly string[];
  unsupported?: readonly string[];
  fail?: Readonly<Record<string, number>>;
  slow_ms?: Readonly<Record<string, number>>;
  /** Scenarios of single GPUs, over what the others have. */
  each?: readonly Omit<Scenario, 'now' | 'each' | 'missing' | 'gpus'>[];
  origin?: number;
  tick_ms?: number;
  quantum_mj?: number;
  base_mj?: number;
  gain?: number;
  noise?: number;
  seed?: number;
  power_average_s?: number;
  memory_power?: number;
  reset_at?: number;
  stuck?: 1;
  mig?: number;
  gpus?: number;
  lost_at?: number;
  struct_version?: 'old';
  process_bytes?: number;
  log?: string;
  stamp?: 'tick';
}

const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const steps = (curve: Curve): (readonly [number, number])[] =>
  typeof curve === 'number' ? [[0, curve]] : [...curve].sort((a, b) => a[0] - b[0]);

function written(key: string, value: unknown): string {
  if (key === 'throttle') return (value as [string, number, number][]).map(([r, a, b]) => `${r}:${a}-${b}`).join();
  if (Array.isArray(value))
    return value.map((one) => (Array.isArray(one) ? `${one[0]}:${one[1] ?? 'na'}` : one)).join();
  if (value !== null && typeof value === 'object') {
    const between = key === 'fail' ? '=' : ':';
    return Object.entries(value)
      .map(([name, number]) => `${name}${between}${number}`)
      .join();
  }
  return String(value);
}

function lines(scenario: Scenario, prefix = ''): string[] {
  return Object.entries(scenario).flatMap(([key, value]) => {
    if (key === 'missing' || value === undefined) return [];
    if (key === 'each') return (value as Scenario[]).flatMap((one, i) => lines(one, `gpu${i}.`));
    return [`${prefix}${key}=${written(key, value)}`];
  });
}

/** Area under a curve up to `t`; counted step by step, unlike the fake's own. */
function area(curve: Curve, from: number, to: number, period: number | undefined): number {
  const levels = steps(curve);
  const first = period ? Math.floor(from / period) : 0;
  const last = period ? Math.floor(to / period) : 0;
  let sum = 0;
  for (let turn = first; turn <= last; turn++) {
    const shift = period ? turn * period : 0;
    levels.forEach(([begin, level], i) => {
      const low = i === 0 ? (period ? shift : Number.NEGATIVE_INFINITY) : shift + begin;
      const end = period ? shift + period : Number.POSITIVE_INFINITY;
      const high = i + 1 < levels.length ? Math.min(shift + levels[i + 1]![0], end) : end;
      sum += level * Math.max(Math.min(high, to) - Math.max(low, from), 0);
    });
  }
  return sum;
}

let started = 0;

/** The one fake of this process; the environment leads to it from `start()` to `stop()`. */
export class Fake implements Disposable {
  readonly #file: string;
  readonly #before: Record<string, string | undefined>;
  #scenario: Scenario;

  private constructor(
    /** What leads to it: KERNWATT_NVML_LIBRARY and KERNWATT_FAKE_NVML, for child processes. */
    readonly env: Readonly<Record<'KERNWATT_NVML_LIBRARY' | 'KERNWATT_FAKE_NVML', string>>,
    scenario: Scenario,
  ) {
    this.#file = env.KERNWATT_FAKE_NVML;
    this.#scenario = scenario;
    this.#before = Object.fromEntries(Object.keys(env).map((name) => [name, process.env[name]]));
    this.set({});
    Object.assign(process.env, env);
  }

  /** A library once opened stays open: a test file that needs `missing` functions is one of its own. */
  static async start(scenario: Scenario = {}): Promise<Fake> {
    const library = await buildFake(scenario.missing);
    const file = join(folder, `scenario-${process.pid}-${started++}`);
    const origin = scenario.now === undefined ? { origin: seconds() } : {};
    return new Fake({ KERNWATT_NVML_LIBRARY: library, KERNWATT_FAKE_NVML: file }, { ...origin, ...scenario });
  }

  /** Changes the scenario from now on; undefined takes a key away. The counter follows at once, as if it had always been so; see draw(). */
  set(partial: { [K in keyof Scenario]: Scenario[K] | undefined }): void {
    this.#scenario = { ...this.#scenario, ...(partial as Scenario) };
    writeFileSync(`${this.#file}.new`, `${lines(this.#scenario).join('\n')}\n`);
    renameSync(`${this.#file}.new`, this.#file);
  }

  /** From now on the board draws so many watts; the past stays as it was. */
  draw(watts: number): void {
    this.set({ power: [...steps(this.#scenario.power ?? 250), [this.now, watts]] });
  }

  /** Virtual time goes on by `by` seconds. */
  advance(by: number): void {
    if (this.#scenario.now === undefined) throw new Error('this fake runs on real time');
    this.set({ now: this.#scenario.now + by });
  }

  /** Seconds of the fake's clock. */
  get now(): number {
    return this.#scenario.now ?? seconds();
  }

  /** True energy of the board between two instants of its clock. */
  joules(from: number, to: number, gpu = 0): number {
    const own = { ...this.#scenario, ...this.#scenario.each?.[gpu] };
    return area(own.power ?? 250, from, to, own.period);
  }

  stop(): void {
    for (const [name, value] of Object.entries(this.#before))
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    rmSync(this.#file, { force: true });
  }

  [Symbol.dispose](): void {
    this.stop();
  }
}
