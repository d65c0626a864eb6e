#!/usr/bin/env node
// Puts what a package brings ready-made into prebuilds/<platform>-<arch>/ with prebuildify: the addon, the library of CUDA kernels when
// it is built, both stripped, and the manifest that src/prebuilt.ts compares them with before it opens them. Takes what
// tools/build.mjs and tools/cuda-build.mjs made; nothing is compiled here, so the files packed are the files tested.
//
//   node tools/prebuild.mjs [--require-cuda]         after npm run build and, for the second file, npm run build:cuda
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import prebuildify from 'prebuildify';
import { root } from './stage.mjs';
import { newer, symbolVersions } from './symbols.mjs';

// prebuildify runs a node-gyp to compile. This file is that too, and hands over the addon that tools/build.mjs compiled: there is
// one builder, and a second compilation with other headers would be another addon than the one tested.
const addon = join(root, 'build/Release/kernwatt.node');
if (process.argv[2] === 'rebuild') {
  mkdirSync('build/Release', { recursive: true });
  copyFileSync(addon, 'build/Release/kernwatt.node');
  process.exit(0);
}

const require = createRequire(import.meta.url);
const cuda = join(root, '.build/cuda/lib/libkernwatt_cuda.so');
const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
const work = join(root, '.build/prebuild');
const artifacts = join(work, 'artifacts');
const flags = process.argv.slice(2);

function stop(message) {
  process.stderr.write(`prebuild: ${message}\n`);
  process.exit(1);
}

for (const flag of flags)
  if (flag !== '--require-cuda') stop(`unknown option ${flag}, expected --require-cuda or none`);
if (!existsSync(addon)) stop(`${addon} is not there; npm run build makes it`);
if (flags.length > 0 && !existsSync(cuda)) stop(`${cuda} is not there; npm run build:cuda makes it`);

for (const stale of [folder, work]) rmSync(stale, { recursive: true, force: true });
mkdirSync(artifacts, { recursive: true });
if (existsSync(cuda)) execFileSync('strip', ['--strip-unneeded', '-o', join(artifacts, 'libkernwatt_cuda.so'), cuda]);
await promisify(prebuildify)({
  cwd: work,
  out: root,
  name: 'kernwatt',
  targets: [`node@${process.versions.node}`],
  napi: true,
  strip: true,
  artifacts,
  nodeGyp: fileURLToPath(import.meta.url),
}).catch((error) => stop(error.message));

const files = {};
let glibc = [0];
for (const name of ['kernwatt.node', 'libkernwatt_cuda.so']) {
  const made = join(folder, name);
  if (!existsSync(made)) continue;
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
