// Builds the addon with AddressSanitizer into .build/asan, runs the tests of test/native and test/ops with it, and then two programs under
// LeakSanitizer: one that uses the package, one that uses and drops every native object.
//
//   node tools/asan.mjs [vitest arguments, in place of test/native test/ops]
import { execFileSync, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { buildEnvironment, headerArguments, root, stage } from './stage.mjs';

const folder = join(root, '.build/asan');
const require = createRequire(import.meta.url);

function run(command, args, options) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', ...options });
  if (error) process.stderr.write(`asan: ${command}: ${error.message}\n`);
  if (status !== 0) process.exit(status ?? 1);
}

stage(folder);
const flags = '-fsanitize=address -fno-omit-frame-pointer -g1';
const env = {
  ...buildEnvironment(),
  CXXFLAGS: flags,
  CFLAGS: flags,
  LDFLAGS: '-fsanitize=address',
  GYP_DEFINES: 'static_libstdcxx=0',
};
const gyp = require.resolve('node-gyp/bin/node-gyp.js');
for (const step of [['configure'], ['build', '-j', 'max']]) {
  run(process.execPath, [gyp, ...step, ...headerArguments(), '--loglevel=warn'], { cwd: folder, env });
}

const library = execFileSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
const tests = process.argv.length > 2 ? process.argv.slice(2) : ['test/native', 'test/ops'];
const sanitized = {
  ...process.env,
  KERNWATT_ADDON: join(folder, 'build/Release/kernwatt.node'),
  KERNWATT_TEST_HOST: '1', // the emulator's library is built without the sanitizer
  LD_PRELOAD: library,
};
run(process.execPath, [join(dirname(require.resolve('vitest/package.json')), 'vitest.mjs'), 'run', ...tests], {
  cwd: root,
  // Leaks are looked for by the tests' own counters: workers that are terminated leave what Node itself drops.
  env: { ...sanitized, ASAN_OPTIONS: 'detect_leaks=0' },
});
const fake = join(folder, 'libfake.so');
const source = join(root, 'test/native/fake_library.cc');
run(
  'g++',
  ['-std=c++20', '-g1', '-shared', '-fPIC', '-fvisibility=hidden', '-o', fake, source, '-lpthread', '-ldl'],
  {},
);
const suppressions = join(root, 'test/native/lsan.supp');
const handles = ['--expose-gc', join(root, 'test/native/handles.mjs'), sanitized.KERNWATT_ADDON, fake];
for (const script of [[join(root, 'test/native/leaks.mjs')], handles]) {
  run(process.execPath, script, {
    cwd: root,
    env: {
      ...sanitized,
      ASAN_OPTIONS: 'detect_leaks=1',
      LSAN_OPTIONS: `suppressions=${suppressions}:print_suppressions=0:exitcode=23`,
    },
  });
}
