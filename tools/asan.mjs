// Builds the addon with AddressSanitizer into .build/asan and runs the tests of test/native and test/ops with it.
//
//   node tools/asan.mjs [vitest arguments, in place of test/native test/ops]
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const folder = join(root, '.build/asan');
const require = createRequire(import.meta.url);

function run(command, args, options) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', ...options });
  if (error) process.stderr.write(`asan: ${command}: ${error.message}\n`);
  if (status !== 0) process.exit(status ?? 1);
}

// node-gyp builds beside binding.gyp, so the folder shows it the same sources under other names.
mkdirSync(folder, { recursive: true });
for (const name of ['binding.gyp', 'package.json', 'native', 'kernels', 'tools', 'node_modules']) {
  rmSync(join(folder, name), { force: true });
  symlinkSync(join(root, name), join(folder, name));
}

const prefix = resolve(dirname(process.execPath), '..');
const headers = existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
const flags = '-fsanitize=address -fno-omit-frame-pointer -g1';
const env = { ...process.env, CXXFLAGS: flags, CFLAGS: flags, LDFLAGS: '-fsanitize=address' };
const gyp = require.resolve('node-gyp/bin/node-gyp.js');
for (const step of [['configure'], ['build', '-j', 'max']]) {
  run(process.execPath, [gyp, ...step, ...headers, '--loglevel=warn'], { cwd: folder, env });
}

const library = execFileSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
const tests = process.argv.length > 2 ? process.argv.slice(2) : ['test/native', 'test/ops'];
run(process.execPath, [join(dirname(require.resolve('vitest/package.json')), 'vitest.mjs'), 'run', ...tests], {
  cwd: root,
  env: {
    ...process.env,
    KERNWATT_ADDON: join(folder, 'build/Release/kernwatt.node'),
    LD_PRELOAD: library,
    // Leaks are looked for by the tests' own counters: workers that are terminated leave what Node itself drops.
    ASAN_OPTIONS: 'detect_leaks=0',
  },
});
