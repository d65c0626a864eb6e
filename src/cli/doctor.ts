// `kernwatt doctor`: what works here, what does not, and the line that fixes it. Runs without the addon. Exit code 0 when what was
// required works (--require; the CPU unless told), 1 when something of it does not.
import { existsSync, readFileSync } from 'node:fs';
import type { CpuInfo } from '../info.js';
import { findLibrary, type LibraryKind, librarySearch } from '../library.js';
import { describeTool, packageRoot, type Tool } from '../measure/environment.js';
import { type EnergySource, probeEnergySources } from '../measure/sources.js';
import { native } from '../native.js';
import { type DeviceName, openDevice } from '../open.js';
import { addonFix, libcVersion } from '../prebuilt.js';
import { bytes, si } from '../report/format.js';
import { facts, table } from '../report/table.js';
import { type Driver, probeDriver } from './driver.js';
import { describeGpu, type GpuReport, probeGpus } from './gpus.js';
import { exit } from './usage.js';

interface Addon {
  state: 'ok' | 'missing';
  abi: number | null;
  napi: number | null;
  detail: string;
  fix: string | null;
}

export interface LibraryReport {
  /** `missing`: no file. `unavailable`: it does not load, or no device of it opens. */
  state: 'ok' | 'missing' | 'unavailable';
  path: string | null;
  abi: number | null;
  build: string | null;
  ops: string[];
  devices: { name: string; product: string; computeCapability: string | null; memoryBytes: number | null }[];
  detail: string;
  fix: string | null;
}

/** What `doctor --json` prints; docs/measuring.md lists the fields. */
export interface Doctor {
  schema: 'kernwatt.doctor/0';
  tool: Tool;
  node: { version: string; napi: string; supported: boolean; wanted: string };
  platform: { os: string; arch: string; libc: string | null };
  addon: Addon;
  cpu: CpuInfo | null;
  clock: { source: string | null; resolutionSeconds: number };
  driver: Driver;
  cuda: LibraryReport;
  emu: LibraryReport;
  energy: EnergySource[];
  /** What NVML answers of each GPU that the driver opens; none without a driver. */
  gpus: GpuReport[];
}

/** The ranges of engines.node: `^20.19.0 || ^22.12.0 || >=24.0.0`. */
export function nodeSupported(version: string, range: string): boolean {
  const parse = (text: string) => text.split('.').map(Number) as [number, number, number];
  const [major, minor, patch] = parse(version.replace(/^v/, ''));
  const atLeast = ([a, b, c]: [number, number, number]) =>
    major !== a ? major > a : minor !== b ? minor > b : patch >= c;
  return range.split('||').some((part) => {
    const [, operator, text] = /^\s*(\^|>=)(\d+\.\d+\.\d+)\s*$/.exec(part) ?? [];
    if (!text) return false;
    const wanted = parse(text);
    return atLeast(wanted) && (operator === '>=' || major === wanted[0]);
  });
}

function probeAddon(): Addon {
  try {
    const { abi, napi } = native();
    return { state: 'ok', abi, napi, detail: 'loads', fix: null };
  } catch (error) {
    return { state: 'missing', abi: null, napi: null, detail: oneLine(error), fix: addonFix() };
  }
}

/** With the files that were tried, each with its reason. */
const oneLine = (error: unknown): string => (error as Error).message.split(/\n\s*/).join('; ');
const firstLine = (error: unknown): string => (error as Error).message.split('\n', 1)[0]!;

/** Smallest step of the clock that host times are read from. */
function clockResolution(): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 2000; i++) {
    const from = process.hrtime.bigint();
    const step = Number(process.hrtime.bigint() - from);
    if (step > 0 && step < least) least = step;
  }
  return least * 1e-9;
}

function clockSource(): string | null {
  try {
    return readFileSync('/sys/devices/system/clocksource/clocksource0/current_clocksource', 'utf8').trim();
  } catch {
    return null;
  }
}

/** A checkout can build the library of kernels; a package holds no sources of it. */
const buildFix = (kind: LibraryKind): string =>
  existsSync(`${packageRoot}/CMakeLists.txt`)
    ? 'npm run build:cuda (needs CMake and the CUDA 13 toolkit)'
    : `npm run build:cuda in a checkout of kernwatt, then set KERNWATT_${kind.toUpperCase()}_LIBRARY to the file it made`;

async function probeLibrary(kind: LibraryKind, addon: Addon, driver: Driver | null): Promise<LibraryReport> {
  const none = { path: null, abi: null, build: null, ops: [], devices: [] };
  if (addon.state !== 'ok')
    return { ...none, state: 'unavailable', detail: 'the addon, which loads it, does not load', fix: addon.fix };
  const places = librarySearch(kind);
  if (!places.some(({ path }) => existsSync(path))) {
    const detail = `not at ${places.map(({ path, from }) => `${path} (${from})`).join(', ')}`;
    return { ...none, state: 'missing', detail, fix: buildFix(kind) };
  }
  let found: ReturnType<typeof findLibrary>;
  try {
    found = findLibrary(kind);
  } catch (error) {
    return { ...none, state: 'unavailable', detail: firstLine(error), fix: loadFix(kind) };
  }
  const { path, abi, build, ops } = found;
  const devices: LibraryReport['devices'] = [];
  let detail = found.deviceCount > 0 ? 'loads' : found.reason;
  for (let i = 0; i < found.deviceCount; i++) {
    const name = `${kind}:${i}` as DeviceName;
    try {
      const device = await openDevice(name);
      const { info } = device;
      devices.push({
        name,
        product: info.name,
        computeCapability: info.computeCapability,
        memoryBytes: info.totalBytes,
      });
      await device.close();
    } catch (error) {
      detail = firstLine(error);
    }
  }
  const state = devices.length > 0 ? 'ok' : 'unavailable';
  const fix = state === 'ok' || kind === 'emu' ? null : deviceFix(found.deviceCount, detail, driver);
  return { path, abi, build, ops, devices, state, detail, fix };
}

/** Why a library that is there does not load: it is not the one that came with this package, or not of this build. */
const loadFix = (kind: LibraryKind): string =>
  librarySearch(kind).find(({ path }) => existsSync(path))!.from === 'with the package'
    ? 'rm -rf node_modules/kernwatt && npm install'
    : buildFix(kind);

/** What to do where the library loads and no device opens: first the driver, then what hides devices, then their age. */
export function deviceFix(count: number, detail: string, driver: Driver | null): string {
  if (driver?.fix) return driver.fix;
  if (/compute capability/.test(detail))
    return 'use a GPU of compute capability 8.0 (Ampere) or newer; the CPU backend works meanwhile';
  if (count === 0)
    return 'unset CUDA_VISIBLE_DEVICES; in a container: run it with --gpus all; nvidia-smi -L lists devices';
  return 'see the kernel log for NVRM lines (sudo dmesg | grep NVRM); a device that fell off the bus needs a restart';
}

export async function examine(): Promise<Doctor> {
  const addon = probeAddon();
  const driver = probeDriver();
  const wanted = (JSON.parse(readFileSync(`${packageRoot}/package.json`, 'utf8')) as { engines: { node: string } })
    .engines.node;
  return {
    schema: 'kernwatt.doctor/0',
    tool: describeTool(),
    node: {
      version: process.version,
      napi: process.versions.napi ?? 'unknown',
      supported: nodeSupported(process.version, wanted),
      wanted,
    },
    platform: { os: process.platform, arch: process.arch, libc: libcVersion() },
    addon,
    cpu: addon.state === 'ok' ? native().cpu() : null,
    clock: { source: clockSource(), resolutionSeconds: clockResolution() },
    driver,
    cuda: await probeLibrary('cuda', addon, driver),
    emu: await probeLibrary('emu', addon, null),
    energy: await probeEnergySources(),
    gpus: await probeGpus(),
  };
}

const withFix = (state: string, detail: string, fix: string | null): string =>
  fix === null ? `${state}: ${detail}` : `${state}: ${detail}\n  fix: ${fix}`;

function describeLibrary(report: LibraryReport): string {
  const devices = report.devices.map(
    (device) =>
      `\n  ${device.name}: ${device.product}${device.computeCapability ? `, compute capability ${device.computeCapability}` : ''}`,
  );
  const build = report.path ? `\n  ${report.path} (ABI ${report.abi}; ${report.build}; ${report.ops.join(', ')})` : '';
  return `${withFix(report.state, report.detail, report.fix)}${build}${devices.join('')}`;
}

export function render(report: Doctor): string {
  const { tool, node, platform, addon, cpu, clock, driver, cuda, emu } = report;
  const commit = tool.gitSha ? ` (${tool.gitSha.slice(0, 10)}${tool.dirty ? ', with local changes' : ''})` : '';
  const rows: [string, string][] = [
    ['kernwatt', `${tool.version}${commit}`],
    [
      'node',
      `${node.version}, Node-API ${node.napi}${node.supported ? '' : `; not supported, expected ${node.wanted}`}`,
    ],
    ['platform', `${platform.os}-${platform.arch}${platform.libc ? `, ${platform.libc}` : ''}`],
    [
      'addon',
      addon.state === 'ok'
        ? `ok: ABI ${addon.abi}, Node-API ${addon.napi}`
        : withFix(addon.state, addon.detail, addon.fix),
    ],
  ];
  if (cpu) {
    const cache = `${bytes(cpu.l2Bytes)} L2, ${bytes(cpu.llcBytes)} last level`;
    rows.push(
      ['cpu', `${cpu.model}, ${cpu.cores} cores, ${cache}`],
      ['isa', `${cpu.isa.join(', ')} (uses ${cpu.isa.at(-1)}; found ${cpu.flags.join(' ')})`],
      ...(cpu.amxWithheld ? [['amx_bf16', `not used: ${cpu.amxWithheld}`] as [string, string]] : []),
      ['memory', `${bytes(cpu.availableBytes)} available of ${bytes(cpu.memoryBytes)}`],
    );
  }
  rows.push(
    ['clock', `${clock.source ?? 'unknown source'}, steps of ${si(clock.resolutionSeconds, 's')}`],
    ['driver', withFix(driver.state, driver.detail, driver.fix)],
    ['cuda', describeLibrary(cuda)],
    ['emu', describeLibrary(emu)],
    ...report.gpus.map((gpu): [string, string] => [`nvml:${gpu.index}`, describeGpu(gpu)]),
  );
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  const indented = rows.map(([name, value]) => [name, value.replaceAll('\n', `\n${' '.repeat(width)}`)] as const);
  const energy = report.energy.map(({ name, state, detail, fix }) => [
    name,
    state,
    fix ? `${detail}; fix: ${fix}` : detail,
  ]);
  const meters = table([{ head: 'energy' }, { head: 'state' }, { head: 'detail' }], energy);
  return `${facts(indented)}\n${meters}`;
}

export const parts = ['cpu', 'cuda', 'emu', 'energy'] as const;
export type Part = (typeof parts)[number];

/** What of `required` does not work, each as a sentence with its fix; an unsupported Node is among it always. */
export function failures(report: Doctor, required: readonly Part[]): string[] {
  const { node, addon, energy } = report;
  const failed: string[] = [];
  const add = (name: string, { state, detail, fix }: { state: string; detail: string; fix: string | null }) =>
    failed.push(`${name} is ${state}: ${detail}${fix === null ? '' : `; fix: ${fix}`}`);
  if (!node.supported) failed.push(`node is ${node.version}, expected ${node.wanted}`);
  for (const part of new Set(required)) {
    if (part === 'energy') {
      if (!energy.some(({ state }) => state === 'ok')) for (const source of energy) add(source.name, source);
      continue;
    }
    const found = part === 'cpu' ? addon : report[part];
    if (found.state !== 'ok') add(part === 'cpu' ? 'addon' : part, found);
  }
  return failed;
}

export async function doctor(options: { json?: boolean; require?: Part[] }): Promise<number> {
  const report = await examine();
  process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : render(report));
  const failed = failures(report, options.require ?? ['cpu']);
  for (const line of failed) process.stderr.write(`kernwatt doctor: ${line}\n`);
  return failed.length > 0 ? exit.failed : exit.ok;
}
