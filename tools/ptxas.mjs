// The gate on what ptxas said about every kernel: reads the *.ptxas logs that tools/ptxas-log.sh left in a build folder, prints
// registers, shared memory and spills, and exits 1 on
//   a spill without an entry {kernel, arch, bytes, reason} in tools/ptxas-waivers.json, or above its bytes (stores + loads),
//   an entry that is no longer needed,
//   any C75xx message: wgmma serialised or setmaxnreg ignored.
//
//   node tools/ptxas.mjs [FOLDER] [--json | --quiet] [--waivers FILE]
//
// FOLDER defaults to .build/cuda; --quiet prints the sum alone.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { demangle, shorten } from './names.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** Kernels of one log: { kernel (mangled), arch, registers, spillBytes, stackBytes, smemBytes }; and its C75xx messages. */
function parse(text) {
  const kernels = [];
  const messages = [];
  let kernel = null;
  for (const line of text.split('\n')) {
    if (/\bC75\d\d\b/.test(line)) messages.push(line.trim());
    const entry = /Compiling entry function '([^']+)' for '([^']+)'/.exec(line);
    if (entry) {
      kernel = { kernel: entry[1], arch: entry[2], registers: null, spillBytes: null, stackBytes: null, smemBytes: 0 };
      kernels.push(kernel);
    }
    const spill = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (spill && kernel && kernel.spillBytes === null) {
      kernel.stackBytes = Number(spill[1]);
      kernel.spillBytes = Number(spill[2]) + Number(spill[3]);
    }
    const used = /Used (\d+) registers/.exec(line);
    if (used && kernel) {
      kernel.registers = Number(used[1]);
      kernel.smemBytes = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0);
    }
  }
  return { kernels, messages };
}

/** What breaks the gate, in words. Kernels carry demangled names. */
function judge(kernels, messages, waivers) {
  const broken = messages.map((message) => `ptxas says ${message}`);
  const needed = new Set();
  for (const k of kernels) {
    if (k.registers === null || k.spillBytes === null) broken.push(`${k.kernel} (${k.arch}): ptxas reported no usage`);
    if (!k.spillBytes) continue;
    const waiver = waivers.find((w) => w.kernel === k.kernel && w.arch === k.arch);
    if (waiver) needed.add(waiver);
    const allowed = waiver?.bytes ?? 0;
    if (k.spillBytes > allowed)
      broken.push(`${k.kernel} (${k.arch}) spills ${k.spillBytes} bytes, expected at most ${allowed}`);
  }
  for (const waiver of waivers) {
    if (!needed.has(waiver)) broken.push(`the waiver for ${waiver.kernel} (${waiver.arch}) is no longer needed`);
    if (!waiver.reason) broken.push(`the waiver for ${waiver.kernel} (${waiver.arch}) gives no reason`);
  }
  return broken;
}

const { values, positionals } = parseArgs({
  options: { json: { type: 'boolean' }, quiet: { type: 'boolean' }, waivers: { type: 'string' } },
  allowPositionals: true,
});
const folder = resolve(root, positionals[0] ?? '.build/cuda');
const logs = existsSync(folder)
  ? readdirSync(folder, { recursive: true })
      .map(String)
      .filter((name) => name.endsWith('.o.ptxas') && existsSync(join(folder, name.slice(0, -'.ptxas'.length))))
  : [];
if (logs.length === 0) {
  process.stderr.write(`ptxas: no *.o.ptxas below ${folder}; build the CUDA library first (npm run build:cuda)\n`);
  process.exit(1);
}
const parsed = logs.sort().map((name) => parse(readFileSync(join(folder, name), 'utf8')));
const kernels = parsed.flatMap((log) => log.kernels);
const names = demangle(kernels.map((k) => k.kernel));
kernels.forEach((k, i) => {
  k.kernel = shorten(names[i]);
});
kernels.sort((a, b) => (a.kernel + a.arch < b.kernel + b.arch ? -1 : 1));
const waivers = JSON.parse(readFileSync(resolve(root, values.waivers ?? 'tools/ptxas-waivers.json'), 'utf8'));
const broken = judge(
  kernels,
  parsed.flatMap((log) => log.messages),
  waivers,
);
if (values.json) {
  process.stdout.write(`${JSON.stringify({ kernels, waivers, broken }, null, 2)}\n`);
} else {
  for (const k of values.quiet ? [] : kernels)
    process.stdout.write(
      `${k.arch.padEnd(7)} ${String(k.registers).padStart(3)} registers  ${String(k.spillBytes).padStart(4)} B spilled  ${k.kernel}\n`,
    );
  process.stdout.write(
    `ptxas: ${kernels.length} kernels, at most ${Math.max(...kernels.map((k) => k.registers ?? 0))} registers, in ${relative(root, folder)}, ${waivers.length} waivers, ${broken.length} broken rules\n`,
  );
}
if (broken.length) {
  process.stderr.write(`${broken.join('\n')}\n`);
  process.exit(1);
}
