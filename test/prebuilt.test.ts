// A package as it is installed: its prebuilt files agree with their manifest or are refused by name, and platforms without an addon
// can still use everything that computes nothing. Each case is a process of its own on a copy of dist/.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import type { Manifest } from '../src/prebuilt.js';
import { addonFile, fakeLibrary } from './native/raw.js';

const root = resolve(import.meta.dirname, '..');
const scratch = mkdtempSync(join(tmpdir(), 'kernwatt-prebuilt-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const bare = join(scratch, 'kernwatt');
const folder = join(bare, 'prebuilds', `${process.platform}-${process.arch}`);
const addon = join(folder, 'kernwatt.node');
const library = join(folder, 'libkernwatt_cuda.so');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

const describeFile = (path: string) => {
  const data = readFileSync(path);
  return { bytes: data.length, sha256: createHash('sha256').update(data).digest('hex') };
};

function writeManifest(changes: Partial<Manifest> = {}): void {
  const files = { 'kernwatt.node': describeFile(addon), 'libkernwatt_cuda.so': describeFile(library) };
  const { platform, arch } = process;
  const base = { schema: 'kernwatt.prebuild/0', version, platform, arch, glibc: '2.34', napi: 9, abi: 3, files };
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify({ ...base, ...changes }));
}

beforeEach(() => {
  rmSync(bare, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  cpSync(join(root, 'dist'), join(bare, 'dist'), { recursive: true });
  cpSync(join(root, 'package.json'), join(bare, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(bare, 'node_modules'));
  cpSync(addonFile, addon);
  cpSync(fakeLibrary(), library);
  writeManifest();
});

/** Runs `body` on the copy; `before` is a module that Node loads first. */
function run(body: string, before = '') {
  const code = `import { openDevice, gemm, ops } from ${JSON.stringify(join(bare, 'dist/index.js'))};
    const fails = async (call) => { try { await call(); return 'no error'; } catch (e) { return e.code + ' ' + e.message; } };
    ${body}`;
  const { KERNWATT_ADDON, KERNWATT_CUDA_LIBRARY, ...env } = process.env;
  const flags = before ? ['--import', `data:text/javascript,${encodeURIComponent(before)}`] : [];
  const result = spawnSync(process.execPath, [...flags, '--input-type=module', '--eval', code], {
    encoding: 'utf8',
    env,
  });
  expect({ stderr: result.stderr, status: result.status, signal: result.signal }).toEqual({
    stderr: '',
    status: 0,
    signal: null,
  });
  return result.stdout;
}

const openCpu = `console.log(await fails(() => openDevice('cpu').then((d) => d.close()))); console.log('alive');`;
const openCuda = openCpu.replace("'cpu'", "'cuda'");

test('what agrees with its manifest is opened', () => {
  expect(run(openCpu)).toBe('no error\nalive\n');
  // Opened, asked, and declined for what the stand-in says it is.
  expect(run(openCuda)).toBe(
    'ERR_KERNWATT_CUDA openDevice: cuda:0 (fake) has compute capability 0.0, expected 8.0 or newer\nalive\n',
  );
});

describe('an addon that does not agree', () => {
  const refused = (reason: string) => {
    const out = run(openCpu);
    expect(out).toContain('ERR_KERNWATT_LIBRARY kernwatt: the native addon is in none of these files on ');
    expect(out).toContain(`${addon}: ${reason}`);
    expect(out).toMatch(/alive\n$/);
    return out;
  };

  test('truncated', () => {
    const { bytes } = describeFile(addon);
    truncateSync(addon, bytes / 2);
    refused(`has ${Math.floor(bytes / 2)} bytes, expected ${bytes}`);
  });

  test('empty', () => {
    const { bytes } = describeFile(addon);
    truncateSync(addon, 0);
    refused(`has 0 bytes, expected ${bytes}`);
  });

  test('one byte changed', () => {
    const { sha256 } = describeFile(addon);
    const data = readFileSync(addon);
    data[data.length >> 1]! ^= 1;
    writeFileSync(addon, data);
    refused(`has sha256 ${describeFile(addon).sha256}, expected ${sha256}`);
  });

  test('of another version, a newer glibc, a newer Node-API, another ABI', () => {
    writeManifest({ version: '9.9.9' });
    refused(`made for kernwatt 9.9.9, expected ${version}`);
    writeManifest({ glibc: '3.1' });
    refused('needs glibc 3.1 or newer, this system has glibc ');
    writeManifest({ napi: 99 });
    refused(`needs Node-API 99, Node ${process.version} has ${process.versions.napi}`);
    writeManifest({ abi: 77 });
    refused('has ABI 3, expected 77');
  });

  test('without a manifest, with a broken one, with one that does not know it', () => {
    writeManifest({ files: {} });
    refused(`not in ${join(folder, 'manifest.json')}`);
    writeFileSync(join(folder, 'manifest.json'), '{');
    refused(`${join(folder, 'manifest.json')} is not a manifest (`);
    rmSync(join(folder, 'manifest.json'));
    refused(`${join(folder, 'manifest.json')} is not a manifest (ENOENT`);
  });

  test('and the error says how to put it right', () => {
    truncateSync(addon, 10);
    expect(refused('has 10 bytes')).toContain('expected one that loads; rm -rf node_modules/kernwatt && npm install\n');
  });
});

test('a library of kernels that does not agree is refused before it is opened', () => {
  const { bytes } = describeFile(library);
  truncateSync(library, 4096);
  expect(run(openCuda)).toBe(
    `ERR_KERNWATT_LIBRARY openDevice: library ${library} has 4096 bytes, expected ${bytes}\nalive\n`,
  );
});

describe.each([
  ['linux', 'arm64', '{ header: { glibcVersionRuntime: "2.36" } }', 'linux-arm64 (glibc 2.36)'],
  ['linux', 'x64', '{ header: {} }', 'linux-x64 (no glibc)'],
  ['darwin', 'arm64', '{ header: {} }', 'darwin-arm64 (no C library named)'],
  ['win32', 'x64', '{ header: {} }', 'win32-x64 (no C library named)'],
])('on %s-%s', (platform, arch, report, named) => {
  const pretend = `Object.defineProperty(process, 'platform', { value: '${platform}' });
    Object.defineProperty(process, 'arch', { value: '${arch}' });
    process.report.getReport = () => (${report});`;

  test(`everything that computes nothing works, and the first call that computes names ${named}`, () => {
    const out = run(
      `console.log(Object.values(ops).every((op) => op.spec.cases().length > 0), gemm.spec.name); ${openCpu}`,
      pretend,
    );
    expect(out).toContain('true gemm\n');
    expect(out).toContain(`ERR_KERNWATT_LIBRARY kernwatt: the native addon is in none of these files on ${named}, `);
    expect(out).toContain(' && node node_modules/kernwatt/tools/from-source.mjs\n');
    expect(out).toMatch(/alive\n$/);
  });

  test('auto fails as the CPU does', () => {
    expect(run(openCpu.replace("'cpu'", "'auto'"), pretend)).toContain(`ERR_KERNWATT_LIBRARY kernwatt: the native`);
  });
});
