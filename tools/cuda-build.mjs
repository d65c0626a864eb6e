// Builds the CUDA library, the emulator's libraries and their C++ tests into .build/cuda (cmake-js drives CMakeLists.txt), then
// holds the kernels to tools/ptxas.mjs and writes down which code each of them is (tools/kernels.mjs). Called by `npm run build:cuda`; needs CMake and the CUDA toolkit, and downloads nothing.
//
//   node tools/cuda-build.mjs [--verbose]
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const verbose = process.argv.includes('--verbose');
const out = join(root, '.build/cuda');

function stop(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

/** nvcc on PATH or where the toolkit installs itself. */
const env = { ...process.env };
for (const folder of [env.CUDA_HOME, env.CUDA_PATH, '/usr/local/cuda'])
  if (folder && existsSync(join(folder, 'bin/nvcc'))) env.PATH = `${env.PATH}:${join(folder, 'bin')}`;
const has = (command) => spawnSync(command, ['--version'], { env }).status === 0;
if (!has('cmake')) stop('build: cmake not found; install it with\n  sudo apt-get install -y cmake');
if (!has('nvcc'))
  stop(
    'build: nvcc not found, neither on PATH nor in /usr/local/cuda. The CUDA toolkit 13 is needed here and nowhere else:\n' +
      '  https://developer.nvidia.com/cuda-downloads\n' +
      'The addon, its CPU backend, tests and benchmarks work without it.',
  );

function run(what, command, args) {
  const started = Date.now();
  const result = spawnSync(command, args, {
    cwd: root,
    env,
    encoding: 'utf8',
    stdio: verbose ? 'inherit' : 'pipe',
    maxBuffer: 1 << 28,
  });
  const log = verbose ? '' : `${result.stdout ?? ''}${result.stderr ?? ''}`;
  if (result.error || result.status !== 0)
    stop(`${log}\nbuild: ${what} failed (${result.error?.message ?? `exit ${result.status ?? result.signal}`})`);
  const warnings = log.split('\n').filter((line) => /\bwarning\b/i.test(line));
  if (warnings.length) process.stderr.write(`${warnings.join('\n')}\n`);
  process.stderr.write(`build: ${what} in ${((Date.now() - started) / 1000).toFixed(1)} s\n`);
}

const cmakeJs = require.resolve('cmake-js/bin/cmake-js');
run('configuring the CUDA library', process.execPath, [cmakeJs, 'configure', '-O', out]);
run('compiling the CUDA library and the emulator', process.execPath, [
  cmakeJs,
  'build',
  '-O',
  out,
  '-p',
  String(availableParallelism()),
]);
for (const name of ['libkernwatt_cuda.so', 'libkernwatt_emu.so', 'libkernwatt_emu_race.so']) {
  const file = join(out, 'lib', name);
  if (!existsSync(file)) stop(`build: ${relative(root, file)} was not built`);
  process.stdout.write(`${relative(root, file)}  ${(statSync(file).size / 1e6).toFixed(1)} MB\n`);
}
for (const [tool, ...args] of [
  ['ptxas.mjs', out, '--quiet'],
  ['kernels.mjs', out],
]) {
  const { status } = spawnSync(process.execPath, [join(root, 'tools', tool), ...args], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
