// Writes which kernels a CUDA library holds and which code each of them is: .build/cuda/kernels.json, from the PTX that
// tools/ptxas-log.sh left beside the library's objects. `npm run build:cuda` runs it.
//
//   node tools/kernels.mjs [FOLDER]      FOLDER: the build folder, default .build/cuda
//
//   { schema, commit, dirty, nvcc, library: sha256 of the library, digest: sha256 over all kernels,
//     kernels: [{ symbol, name, arch, hash, ptxas, flags, ops }] }
//
// One entry per kernel and machine code: "sm_80" is compute_80's PTX translated by ptxas here. The PTX that the library carries
// for later GPUs has no entry, because the driver translates it: what runs there is nobody's proof (tools/ledger.mjs refuses it).
// digest leaves symbols out, which may carry a process id. Exits 1, naming the object, when anything does not fit together.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { demangle, shorten } from './names.mjs';
import { kernelsOf } from './ptx.mjs';

export const SCHEMA = 'kernwatt.kernels/0';
const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const rebuild = 'delete the object and run npm run build:cuda';
const sha256 = (data) => createHash('sha256').update(data).digest('hex');

/** Arguments that do not change machine code: where things are, what the host compiler is told, what is reported. */
const harmless = [
  /^-(c|MD|MMD|MP|lineinfo|forward-unknown-to-host-compiler)$/,
  /^-(D|I|isystem|Xcompiler=|std=)/,
  /^(--compress-mode=\w+|-Xptxas=-v)$/,
];
const withValue = new Set(['-o', '-x', '-MF', '-MT', '-MQ', '-isystem', '-I', '-D', '-Xcompiler']);

/** nvcc's arguments as one line without the harmless ones, and the machine codes made from each virtual architecture. */
function readFlags(args) {
  const kept = [];
  const codes = new Map();
  for (let i = 0; i < args.length; ++i) {
    const arg = args[i];
    const gencode = arg === '-gencode' ? args[++i] : /^-gencode=(.*)/.exec(arg)?.[1];
    if (gencode !== undefined) {
      const [, virtual, list] = /^arch=(\w+),code=\[?([\w,]+)\]?$/.exec(gencode) ?? [];
      if (!virtual)
        throw new Error(`-gencode is ${gencode}, expected arch=compute_N,code=sm_N or code=[sm_N,compute_N]`);
      const machine = list.split(',').filter((code) => code.startsWith('sm_'));
      codes.set(virtual, [...(codes.get(virtual) ?? []), ...machine]);
    } else if (withValue.has(arg)) {
      ++i;
    } else if (!/\.(cu|o)$/.test(arg) && !harmless.some((pattern) => pattern.test(arg))) {
      kept.push(arg);
    }
  }
  return { flags: kept.join(' '), codes };
}

/** The kernels of one object, from what was kept beside it. */
function objectKernels(object) {
  const folder = dirname(object);
  const ptx = readdirSync(folder).filter((name) => name.startsWith(`${basename(object)}.`) && name.endsWith('.ptx'));
  if (ptx.length === 0 || !existsSync(`${object}.flags`)) throw new Error(`no PTX beside it; ${rebuild}`);
  const [ptxas, , ...args] = readFileSync(`${object}.flags`, 'utf8').trimEnd().split('\n');
  if (!/^\d+\.\d+/.test(ptxas)) throw new Error(`the version of ptxas is "${ptxas}", expected a number; ${rebuild}`);
  const { flags, codes } = readFlags(args);
  const op = /\/kernels\/(\w+)\/[^/]*$/.exec(object)?.[1] ?? 'core';
  const found = [];
  for (const name of ptx) {
    const text = readFileSync(join(folder, name), 'utf8');
    const [, nvcc = 'unknown'] = /^\/\/ Cuda compilation tools.*, V([\d.]+)/m.exec(text) ?? [];
    for (const { symbol, target, hash } of kernelsOf(text)) {
      const machine = codes.get(target.replace('sm_', 'compute_'));
      if (!machine) throw new Error(`${name} is for ${target}, which its flags do not name; ${rebuild}`);
      for (const arch of machine) found.push({ symbol, arch, hash, ptxas, flags, nvcc, ops: [op] });
    }
  }
  const log = `${object}.ptxas`;
  const said = existsSync(log)
    ? [...readFileSync(log, 'utf8').matchAll(/Compiling entry function '([^']+)' for '([^']+)'/g)].map(
        (m) => `${m[1]} ${m[2]}`,
      )
    : [];
  const read = new Set(found.map((k) => `${k.symbol} ${k.arch}`));
  for (const kernel of said)
    if (!read.has(kernel)) throw new Error(`ptxas compiled ${kernel}, but its PTX lacks it; ${rebuild}`);
  return found;
}

/** Objects of the library below a build folder of CMake. */
function libraryObjects(folder) {
  const files = join(folder, 'CMakeFiles');
  const targets = existsSync(files) ? readdirSync(files).filter((name) => /^kernwatt_cuda\w*\.dir$/.test(name)) : [];
  return targets
    .flatMap((target) =>
      readdirSync(join(files, target), { recursive: true }).map((name) => join(files, target, String(name))),
    )
    .filter((name) => name.endsWith('.cu.o'))
    .sort();
}

/** { nvcc: version, kernels: all of the library, sorted by name and architecture }; throws what does not fit together. */
export function collect(folder) {
  const objects = libraryObjects(folder);
  if (objects.length === 0) throw new Error(`no object of the CUDA library below ${folder}; run npm run build:cuda`);
  const kernels = new Map();
  for (const object of objects) {
    let found;
    try {
      found = objectKernels(object);
    } catch (error) {
      throw new Error(`${relative(folder, object)}: ${error.message}`);
    }
    for (const kernel of found) {
      const key = `${kernel.symbol} ${kernel.arch}`;
      const known = kernels.get(key);
      if (!known) kernels.set(key, kernel);
      else if (known.hash !== kernel.hash || known.flags !== kernel.flags)
        throw new Error(`${relative(folder, object)}: ${key} is compiled differently in another object of the library`);
      else known.ops = [...new Set([...known.ops, ...kernel.ops])].sort();
    }
  }
  const list = [...kernels.values()];
  const names = demangle(list.map((kernel) => kernel.symbol)).map(shorten);
  const seen = new Map();
  const named = list.map(({ symbol, nvcc, ...rest }, i) => {
    const key = `${names[i]} ${rest.arch}`;
    if (seen.has(key)) throw new Error(`${symbol} and ${seen.get(key)} are both called ${key}; rename one`);
    seen.set(key, symbol);
    return { symbol, name: names[i], ...rest };
  });
  return {
    nvcc: [...new Set(list.map((kernel) => kernel.nvcc))].sort().join(' and '),
    kernels: named.sort((a, b) => (`${a.name} ${a.arch}` < `${b.name} ${b.arch}` ? -1 : 1)),
  };
}

export const digestOf = (kernels) =>
  sha256(
    kernels
      .map((k) => [k.name, k.arch, k.hash, k.ptxas, k.flags].join('\t'))
      .sort()
      .join('\n'),
  );

function git(...args) {
  try {
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return null;
  }
}

function main() {
  const folder = resolve(root, process.argv[2] ?? '.build/cuda');
  const library = join(folder, 'lib/libkernwatt_cuda.so');
  if (!existsSync(library)) throw new Error(`${library} does not exist; run npm run build:cuda`);
  const { nvcc, kernels } = collect(folder);
  const changed = git('status', '--porcelain', '--untracked-files=no');
  const file = join(folder, 'kernels.json');
  const content = {
    schema: SCHEMA,
    commit: git('rev-parse', 'HEAD') ?? 'unknown',
    dirty: changed === null ? null : changed !== '',
    nvcc,
    library: sha256(readFileSync(library)),
    digest: digestOf(kernels),
    kernels,
  };
  writeFileSync(`${file}.new`, `${JSON.stringify(content, null, 1)}\n`);
  renameSync(`${file}.new`, file);
  process.stdout.write(
    `kernels: ${kernels.length} identified, digest ${content.digest.slice(0, 12)}, in ${relative(root, file)}\n`,
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    main();
  } catch (error) {
    process.stderr.write(`kernels: ${error.message}\n`);
    process.exit(1);
  }
}
