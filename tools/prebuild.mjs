// Puts what a package brings ready-made into prebuilds/<platform>-<arch>/: the addon, the library of CUDA kernels when it is built,
// both stripped, and the manifest that src/prebuilt.ts compares them with before it opens them. Takes what tools/build.mjs and
// tools/cuda-build.mjs made; nothing is compiled here, so the files packed are the files tested.
//
//   node tools/prebuild.mjs [--require-cuda]         after npm run build and, for the second file, npm run build:cuda
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { root } from './stage.mjs';
import { newer, symbolVersions } from './symbols.mjs';

const require = createRequire(import.meta.url);
const addon = join(root, 'build/Release/kernwatt.node');
const cuda = join(root, '.build/cuda/lib/libkernwatt_cuda.so');
const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
const flags = process.argv.slice(2);

function stop(message) {
  process.stderr.write(`prebuild: ${message}\n`);
  process.exit(1);
}

for (const flag of flags)
  if (flag !== '--require-cuda') stop(`unknown option ${flag}, expected --require-cuda or none`);
if (!existsSync(addon)) stop(`${addon} is not there; npm run build makes it`);
if (flags.length > 0 && !existsSync(cuda)) stop(`${cuda} is not there; npm run build:cuda makes it`);

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const files = {};
let glibc = [0];
for (const source of [addon, cuda].filter((file) => existsSync(file))) {
  const name = basename(source);
  const made = join(folder, name);
  execFileSync('strip', ['--strip-unneeded', '-o', `${made}.part`, source]);
  renameSync(`${made}.part`, made);
  const needed = symbolVersions(made).GLIBC ?? [0];
  if (newer(needed, glibc)) glibc = needed;
  files[name] = {
    bytes: statSync(made).size,
    sha256: createHash('sha256').update(readFileSync(made)).digest('hex'),
  };
}
const { abi, napi } = require(join(folder, 'kernwatt.node'));
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const manifest = {
  schema: 'kernwatt.prebuild/0',
  version,
  platform: process.platform,
  arch: process.arch,
  glibc: glibc.join('.'),
  napi,
  abi,
  files,
};
writeFileSync(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
for (const [name, { bytes }] of Object.entries(files)) process.stdout.write(`${join(folder, name)}: ${bytes} bytes\n`);
if (!existsSync(cuda))
  process.stdout.write('no library of CUDA kernels: .build/cuda/lib has none (npm run build:cuda)\n');
