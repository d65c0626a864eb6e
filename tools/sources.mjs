// Prints the C++ sources of one part of the addon, found by suffix so that native/addon.gypi names no operator.
//
//   node tools/sources.mjs addon|ref|cpu|avx2|avx512|avx512bf16|amxbf16
import { readdirSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const suffix = (name) => (file) => file.endsWith(`_${name}.cc`);
const isas = ['avx2', 'avx512', 'avx512bf16', 'amxbf16'];
const kernels = (file) => file.startsWith('kernels/') && !/^kernels\/core\/(cuda|emu)\//.test(file);

/** Compiled without contraction: definitions, what compares with them, and seeded contents. */
const exact = (file) => kernels(file) && (suffix('ref')(file) || file.startsWith('kernels/core/host/'));

const parts = {
  addon: (file) => file.startsWith('native/'),
  ref: exact,
  cpu: (file) => kernels(file) && !exact(file) && !isas.some((name) => suffix(name)(file)),
  ...Object.fromEntries(isas.map((isa) => [isa, (file) => kernels(file) && suffix(isa)(file)])),
};

const part = parts[process.argv[2]];
if (!part) {
  process.stderr.write(`sources: part is ${process.argv[2]}, expected one of ${Object.keys(parts).join(', ')}\n`);
  process.exit(1);
}
const files = ['native', 'kernels']
  .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
  .filter((entry) => entry.isFile() && entry.name.endsWith('.cc'))
  .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
  .filter(part)
  .sort();
process.stdout.write(files.map((file) => `${file}\n`).join(''));
