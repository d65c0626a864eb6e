// One formatter run for both languages: clang-format for C++ and CUDA, biome for TypeScript, JavaScript and JSON.
//
//   node tools/format.mjs [--write]        without --write it only checks, and exits 1 when a file would change
import { execFileSync, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const write = process.argv.includes('--write');
const list = (...patterns) =>
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', ...patterns], {
    cwd: root,
    encoding: 'utf8',
  })
    .split('\n')
    .filter((name) => name && !name.endsWith('.inc'));

const run = (command, args) => spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status ?? 1;
const clangFormat = require('clang-format').getNativeBinary();
const cpp = [...new Set(list('*.h', '*.cc', '*.cu', '*.cuh'))];
const biome = join(dirname(require.resolve('@biomejs/biome/package.json')), 'bin/biome');

let status = cpp.length
  ? run(clangFormat, [...(write ? ['-i'] : ['--dry-run', '--Werror']), '--style=file', ...cpp])
  : 0;
status ||= run(process.execPath, [biome, 'format', ...(write ? ['--write'] : []), '.']);
process.exit(status);
