// Files that a package brings ready-made (prebuilds/<platform>-<arch>/) and the manifest beside them, written by tools/prebuild.mjs.
// A file is compared with its manifest before it is opened: a truncated library can end the process that maps it.
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

// Not imported: native.ts says why.
const { createReadStream, existsSync, readFileSync, statSync } = process.getBuiltinModule('node:fs');

export interface Manifest {
  schema: 'kernwatt.prebuild/0';
  /** Version of the package that the files belong to. */
  version: string;
  platform: string;
  arch: string;
  /** Oldest glibc that has every symbol the files need, for example `2.34`. */
  glibc: string;
  /** Node-API version and KW_ABI of the addon. */
  napi: number;
  abi: number;
  files: Record<string, { bytes: number; sha256: string }>;
}

/** Root folder of this package, in a checkout and installed. */
const root = fileURLToPath(new URL('..', import.meta.url));
const manifestName = 'manifest.json';

/** Where ready-made files for this platform are, whether or not there are any. */
export const prebuilds = (): string => join(root, 'prebuilds', `${process.platform}-${process.arch}`);

let libc: string | null | undefined;

/** `glibc 2.36`, or null where the C library does not say (musl) or there is none. */
export function libcVersion(): string | null {
  if (libc !== undefined) return libc;
  const header = (process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined)?.header;
  libc = header?.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : null;
  return libc;
}

/** `linux-x64 (glibc 2.36)`, as error messages name where they happen. */
export const platformName = (): string =>
  `${process.platform}-${process.arch} (${libcVersion() ?? (process.platform === 'linux' ? 'no glibc' : 'no C library named')})`;

/** Whether this system has a glibc as new as that. */
function hasGlibc(wanted: string): boolean {
  const parts = (version: string) => version.split('.').map(Number);
  const [have, want] = [parts(libcVersion()?.replace('glibc ', '') ?? '0'), parts(wanted)];
  const at = want.findIndex((part, i) => part !== (have[i] ?? 0));
  return at < 0 || (have[at] ?? 0) > want[at]!;
}

function readPackage(): { name: string; version: string } {
  try {
    return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  } catch {
    return { name: 'unknown', version: 'unknown' };
  }
}

/** What makes the addon load where it does not: another line in a bundle, a checkout, a damaged package, and where none fits. */
export function addonFix(): string {
  if (readPackage().name !== 'kernwatt')
    return 'mark kernwatt as external to the bundler, which took it away from its files';
  if (existsSync(join(root, 'binding.gyp'))) return 'npm run build';
  const source = 'npm install --no-save node-gyp node-addon-api && node node_modules/kernwatt/tools/from-source.mjs';
  if (!existsSync(prebuilds())) return source;
  try {
    if (!hasGlibc(readManifest(prebuilds()).glibc)) return source;
  } catch {
    // A package whose manifest cannot be read is damaged.
  }
  return 'rm -rf node_modules/kernwatt && npm install';
}

function readManifest(folder: string): Manifest {
  const file = join(folder, manifestName);
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Manifest;
  } catch (error) {
    throw new Error(`${file} is not a manifest (${(error as Error).message})`);
  }
}

/** All but the contents of a file against its manifest. Throws an Error that says what is expected and what is there instead. */
function expectation(path: string): { manifest: Manifest; sha256: string } {
  const manifest = readManifest(dirname(path));
  const expected = manifest.files?.[basename(path)];
  if (!expected) throw new Error(`not in ${join(dirname(path), manifestName)}`);
  const { version } = readPackage();
  if (manifest.version !== version) throw new Error(`made for kernwatt ${manifest.version}, expected ${version}`);
  if (!hasGlibc(manifest.glibc))
    throw new Error(`needs glibc ${manifest.glibc} or newer, this system has ${libcVersion() ?? 'none'}`);
  const napi = Number(process.versions.napi);
  if (napi < manifest.napi) throw new Error(`needs Node-API ${manifest.napi}, Node ${process.version} has ${napi}`);
  const { size } = statSync(path);
  if (size !== expected.bytes) throw new Error(`has ${size} bytes, expected ${expected.bytes}`);
  return { manifest, sha256: expected.sha256 };
}

// Asked for where it is used, not imported above: 2 ms that importing this package should not take.
const sha256 = () => process.getBuiltinModule('node:crypto').createHash('sha256');

function compare(found: string, expected: string): void {
  if (found !== expected) throw new Error(`has sha256 ${found}, expected ${expected}`);
}

/** The manifest that `path` agrees with. Throws an Error that says what is expected and what is there instead. */
export function verified(path: string): Manifest {
  const expected = expectation(path);
  compare(sha256().update(readFileSync(path)).digest('hex'), expected.sha256);
  return expected.manifest;
}

/** As `verified`, reading and hashing in pieces: a library of kernels has tens of megabytes. */
export async function verifiedSoon(path: string): Promise<Manifest> {
  const expected = expectation(path);
  const hash = sha256();
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(piece);
  compare(hash.digest('hex'), expected.sha256);
  return expected.manifest;
}
