// `kernwatt doctor`: what works here, what does not, and the line that fixes it. Runs without the addon.
import { existsSync, readFileSync } from 'node:fs';
import { findLibrary, type LibraryKind, librarySearch } from '../library.js';
import { describeTool, packageRoot, type Tool } from '../measure/environment.js';
import { type EnergySource, loadable, probeEnergySources } from '../measure/sources.js';
import { type CpuInfo, native } from '../native.js';
import { type DeviceName, openDevice } from '../open.js';
import { addonFix, libcVersion } from '../prebuilt.js';
import { bytes, si } from '../report/format.js';
import { facts, table } from '../report/table.js';

interface Addon {
  state: 'ok' | 'missing';
  abi: number | null;
  napi: number | null;
  detail: string;
  fix: string | null;
}

interface LibraryReport {
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
  driver: { ok: boolean; detail: string };
  cuda: LibraryReport;
  emu: LibraryReport;
  energy: EnergySource[];
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
    return { state: 'missing', abi: null, napi: null, detail: firstLine(error), fix: addonFix() };
  }
}

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

const driverFix = 'install the NVIDIA driver (in a container: run with --gpus all)';
const buildFix = 'npm run build:cuda (needs CMake and the CUDA toolkit)';

async function probeLibrary(kind: LibraryKind, addon: Addon): Promise<LibraryReport> {
  const none = { path: null, abi: null, build: null, ops: [], devices: [] };
  if (addon.state !== 'ok')
    return { ...none, state: 'unavailable', detail: 'the addon, which loads it, does not load', fix: addon.fix };
  const places = librarySearch(kind);
  if (!places.some(({ path }) => existsSync(path))) {
    const detail = `not at ${places.map(({ path, from }) => `${path} (${from})`).join(', ')}`;
    return { ...none, state: 'missing', detail, fix: buildFix };
  }
  let found: ReturnType<typeof findLibrary>;
  try {
    found = findLibrary(kind);
  } catch (error) {
    return { ...none, state: 'unavailable', detail: firstLine(error), fix: buildFix };
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
  return { path, abi, build, ops, devices, state, detail, fix: state === 'ok' || kind === 'emu' ? null : driverFix };
}

export async function examine(): Promise<Doctor> {
  const addon = probeAddon();
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
    driver: loadable('libcuda.so.1'),
    cuda: await probeLibrary('cuda', addon),
    emu: await probeLibrary('emu', addon),
    energy: await probeEnergySources(),
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
      ['memory', `${bytes(cpu.availableBytes)} available of ${bytes(cpu.memoryBytes)}`],
    );
  }
  rows.push(
    ['clock', `${clock.source ?? 'unknown source'}, steps of ${si(clock.resolutionSeconds, 's')}`],
    ['driver', driver.ok ? `ok: ${driver.detail}` : `missing: ${driver.detail}`],
    ['cuda', describeLibrary(cuda)],
    ['emu', describeLibrary(emu)],
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

export async function doctor(options: { json?: boolean }): Promise<number> {
  const report = await examine();
  process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : render(report));
  return 0;
}
