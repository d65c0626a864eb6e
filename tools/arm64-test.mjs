// The documented way to a platform without a ready-made addon, walked for Linux on arm64: unpacks the tarball, cross-compiles the
// addon from the sources in it with tools/from-source.mjs, and compares operators with their definitions under qemu and npm's
// Node for arm64. Needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user-static).
//
//   node tools/arm64-test.mjs                        packs first; about two minutes on two cores
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { nodeFolder } from './nodes.mjs';
import { root } from './stage.mjs';

const folder = join(root, '.build/arm64');
const sysroot = '/usr/aarch64-linux-gnu';
const started = performance.now();
const said = (line) =>
  process.stdout.write(`${((performance.now() - started) / 1000).toFixed(0).padStart(4)} s  ${line}\n`);

function stop(message) {
  process.stderr.write(`arm64-test: ${message}\n`);
  process.exit(1);
}

function run(command, args, options = {}) {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', ...options });
  if (error || status !== 0)
    stop(`${command} ${args.join(' ')}: ${error?.message ?? signal ?? status}\n${stdout}${stderr}`.slice(-8000));
  return stdout;
}

const qemu = ['qemu-aarch64-static', 'qemu-aarch64'].find((name) => spawnSync(name, ['--version']).status === 0);
if (!qemu || spawnSync('aarch64-linux-gnu-g++', ['--version']).status !== 0)
  stop('needs a compiler and an emulator: sudo apt-get install -y g++-aarch64-linux-gnu qemu-user-static');

rmSync(folder, { recursive: true, force: true });
const installed = join(folder, 'node_modules/kernwatt');
mkdirSync(installed, { recursive: true });
run('npm', ['pack', '--silent', '--pack-destination', folder], { cwd: root });
const [tarball] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
run('tar', ['xzf', tarball, '-C', installed, '--strip-components=1'], { cwd: folder });
const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
// What `npm install` would put beside it, and what its user adds to build from source.
for (const entry of readdirSync(join(root, 'node_modules')))
  if (entry !== 'kernwatt' && !entry.startsWith('.'))
    symlinkSync(join(root, 'node_modules', entry), join(folder, 'node_modules', entry));
for (const name of Object.keys(dependencies))
  if (!existsSync(join(folder, 'node_modules', name))) stop(`${name} is not installed; npm ci installs it`);

const node = nodeFolder('22', 'arm64');
const cross = { CC: 'aarch64-linux-gnu-gcc', CXX: 'aarch64-linux-gnu-g++', AR: 'aarch64-linux-gnu-ar' };
run(process.execPath, ['node_modules/kernwatt/tools/from-source.mjs', '--arch=arm64', `--nodedir=${node}`], {
  cwd: folder,
  env: { ...process.env, ...cross },
});
const addon = join(installed, 'build/Release/kernwatt.node');
const kind = run('aarch64-linux-gnu-objdump', ['-f', addon]);
if (!/aarch64/.test(kind)) stop(`${addon} is not for arm64:\n${kind}`);
said('cross-compiled from the tarball');

const emulated = (...args) => run(qemu, ['-L', sysroot, join(node, 'bin/node'), ...args], { cwd: folder });
const command = join(installed, 'dist/cli/main.js');
const { platform, addon: found, cpu } = JSON.parse(emulated(command, 'doctor', '--json'));
if (platform.arch !== 'arm64' || found.state !== 'ok' || cpu.isa.join() !== 'generic')
  stop(`doctor says ${JSON.stringify({ platform, found, isa: cpu?.isa })}, expected arm64, ok and generic`);
said(`doctor under ${qemu}: addon ok, instruction sets ${cpu.isa.join(', ')}`);
for (const op of JSON.parse(emulated(command, 'ops', '--json')).ops) {
  const verdict = emulated(command, 'check', op.name, '--fuzz', '12', '--seed', '1', '--threads', '2')
    .trim()
    .split('\n')
    .at(-1);
  if (!/^[1-9]\d* passed, 0 failed/.test(verdict)) stop(`check ${op.name}: ${verdict}`);
  said(`check ${op.name}, random cases: ${verdict}`);
}
