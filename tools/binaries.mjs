// What the built binaries promise other machines, read with nm and objdump. Exits 1 on a broken promise.
//
// 1. Objects compiled for one instruction set define no weak symbol: the linker may keep any copy of an inline function, and a
//    copy compiled for AVX-512 would then run on a processor without it.
// 2. The addon, the CUDA library and kernwatt_check ask for no newer glibc or libstdc++ than the floor named here.
// 3. The addon needs neither CUDA, NVML nor a libstdc++ to load; it and the CUDA library export their entry and nothing else.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { newer, symbolVersions } from './symbols.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** Newest symbol versions a binary may need: Debian 12, Ubuntu 22.04, RHEL 9 have these. */
const floor = { GLIBC: [2, 34], GLIBCXX: [3, 4, 30], CXXABI: [1, 3, 13] };

const broken = [];
const said = [];
const output = (command, args) => execFileSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
function weakSymbols(folder) {
  const objects = readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => /_(avx2|avx512|avx512bf16|amxbf16)\.o$/.test(name));
  for (const object of objects) {
    const weak = output('nm', ['-C', '--defined-only', join(folder, object)])
      .split('\n')
      .filter((line) => /^[0-9a-f]+ [WVu] /.test(line) && !/DW\.ref\.__gxx_personality/.test(line));
    for (const line of weak) broken.push(`${object} defines the weak symbol ${line.slice(19)}`);
  }
  if (objects.length === 0)
    broken.push(`no object for one instruction set under ${relative(root, folder)}; is the addon built?`);
  else said.push(`${objects.length} objects for one instruction set, no weak symbol`);
}

function versions(file) {
  const newest = symbolVersions(file);
  for (const [family, parts] of Object.entries(newest))
    if (newer(parts, floor[family]))
      broken.push(`${file} needs ${family}_${parts.join('.')}, expected at most ${floor[family].join('.')}`);
  said.push(
    `${relative(root, file)}: ${Object.entries(newest)
      .map(([f, v]) => `${f} ${v.join('.')}`)
      .join(', ')}`,
  );
}

function needs(file, forbidden) {
  for (const [, library] of output('objdump', ['-p', file]).matchAll(/NEEDED\s+(\S+)/g))
    if (forbidden.test(library)) broken.push(`${file} needs ${library} to load`);
}

function exportsOnly(file, names) {
  for (const line of output('nm', ['-D', '--defined-only', file]).trim().split('\n')) {
    const symbol = line.split(' ')[2];
    if (!names.includes(symbol)) broken.push(`${file} exports ${symbol}, expected ${names.join(', ')} alone`);
  }
}

const addon = join(root, 'build/Release/kernwatt.node');
weakSymbols(join(root, 'build/Release'));
versions(addon);
needs(addon, /cuda|nvidia|nvml|libstdc\+\+/);
exportsOnly(addon, ['napi_register_module_v1', 'node_api_module_get_api_version_v1']);

const cuda = join(root, '.build/cuda/lib/libkernwatt_cuda.so');
if (existsSync(cuda)) {
  versions(cuda);
  needs(cuda, /libcuda\.so|libcudart|nvidia|nvml/);
  exportsOnly(cuda, ['kw_cuda_table']);
  const check = join(root, '.build/cuda/bin/kernwatt_check');
  versions(check);
  needs(check, /cuda|nvidia|nvml|libstdc\+\+/);
} else {
  said.push('CUDA library not built; nothing to check there (npm run build:cuda)');
}

process.stdout.write(`${said.join('\n')}\n`);
if (broken.length) {
  process.stderr.write(`${broken.join('\n')}\n`);
  process.exit(1);
}
