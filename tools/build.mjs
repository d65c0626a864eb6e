// The only builder of the addon and the TypeScript: `npm ci`, `npm run bench` and `npm test` all come through here.
// Incremental: does nothing when no source is newer than what it built. Never calls nvcc; `--cuda` runs tools/cuda-build.mjs.
//
//   node tools/build.mjs [--cuda] [--force] [--verbose]
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { buildEnvironment, headerArguments, root } from './stage.mjs';

const require = createRequire(import.meta.url);
const flags = new Set(process.argv.slice(2));
const verbose = flags.has('--verbose');
for (const flag of flags)
  if (!['--cuda', '--force', '--verbose'].includes(flag))
    stop(`build: unknown option ${flag}, expected --cuda, --force or --verbose`);

function stop(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

/** Files below `folder` whose names match, sorted. */
function files(folder, pattern) {
  const found = readdirSync(join(root, folder), { recursive: true, withFileTypes: true });
  return found
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

function run(what, command, args, options = {}) {
  const started = Date.now();
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    stdio: verbose ? 'inherit' : 'pipe',
    ...options,
  });
  if (result.error || result.status !== 0) {
    const log = verbose ? '' : `${result.stdout ?? ''}${result.stderr ?? ''}`;
    stop(`${log}\nbuild: ${what} failed (${result.error?.message ?? `exit ${result.status ?? result.signal}`})`);
  }
  process.stderr.write(`build: ${what} in ${((Date.now() - started) / 1000).toFixed(1)} s\n`);
}

/** True when `output` is older than any input or was made from another set of inputs. */
function stale(output, stamp, inputs, extra) {
  const key = createHash('sha256')
    .update(JSON.stringify([inputs, extra]))
    .digest('hex');
  const fresh = () => {
    if (flags.has('--force') || !existsSync(output) || !existsSync(stamp)) return false;
    if (readFileSync(stamp, 'utf8') !== key) return false;
    const built = statSync(stamp).mtimeMs;
    return inputs.every((file) => statSync(file).mtimeMs <= built);
  };
  return { stale: !fresh(), done: (startedAt) => finish(stamp, key, startedAt) };
}

/** The stamp carries the time the build began, so an edit made while it ran counts as newer. */
function finish(stamp, key, startedAt) {
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, key);
  utimesSync(stamp, startedAt, startedAt);
}

const tools = [
  { command: 'g++', apt: 'g++' },
  { command: 'make', apt: 'make' },
  { command: 'python3', apt: 'python3' },
];

function addon() {
  const sources = [...files('native', /\.(cc|h|gypi|map)$/), ...files('kernels', /\.(cc|h)$/)].filter(
    (f) => !f.includes('/emu/'),
  );
  const inputs = [join(root, 'binding.gyp'), ...sources];
  const output = join(root, 'build/Release/kernwatt.node');
  const state = stale(output, join(root, 'build/.kernwatt-stamp'), inputs, [process.version, process.arch]);
  if (!state.stale) return;
  const missing = tools.filter(({ command }) => spawnSync(command, ['--version']).status !== 0);
  if (missing.length && process.platform === 'linux') {
    const names = missing.map((tool) => tool.command).join(', ');
    stop(
      `build: ${names} not found, needed to compile the addon; install with\n  sudo apt-get install -y ${missing.map((t) => t.apt).join(' ')}`,
    );
  }
  const startedAt = new Date();
  const headers = headerArguments();
  const env = buildEnvironment(); // a checkout must build the same whatever this user's npm is told
  const gyp = require.resolve('node-gyp/bin/node-gyp.js');
  if (!existsSync(join(root, 'build/Makefile')) || flags.has('--force'))
    rmSync(join(root, 'build'), { recursive: true, force: true });
  const jobs = String(availableParallelism());
  run('configuring the addon', process.execPath, [gyp, 'configure', ...headers], { env });
  run('compiling the addon', process.execPath, [gyp, 'build', '-j', jobs, ...headers], { env });
  state.done(startedAt);
}

function typescript() {
  const inputs = [join(root, 'tsconfig.json'), ...files('src', /\.(ts|json|css)$/)];
  const state = stale(join(root, 'dist/report/page/page.js'), join(root, 'dist/.kernwatt-stamp'), inputs, []);
  if (!state.stale) return;
  const startedAt = new Date();
  run('compiling the TypeScript', process.execPath, [require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.json']);
  cpSync(join(root, 'src/schema'), join(root, 'dist/schema'), { recursive: true });
  page();
  state.done(startedAt);
}

/** The script of the HTML report with its charting library, as one file that a page can hold. */
function page() {
  const from = join(root, 'src/report/page');
  const to = join(root, 'dist/report/page');
  const rolldown = join(dirname(require.resolve('rolldown/package.json')), 'bin/cli.mjs');
  run('bundling the report page', process.execPath, [
    rolldown,
    ...[join(from, 'main.ts'), '--format', 'iife', '--platform', 'browser', '--minify', '--file', join(to, 'page.js')],
  ]);
  // The notices of what is bundled travel with every page, as their licences ask.
  const notices = ['chart.js', '@kurkle/color'].map((name) => {
    const folder = join(root, 'node_modules', name);
    const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    return `${name} ${version}\n${readFileSync(join(folder, 'LICENSE.md'), 'utf8')}`;
  });
  const script = readFileSync(join(to, 'page.js'), 'utf8');
  writeFileSync(join(to, 'page.js'), `/*!\n${notices.join('\n')}*/\n${script}`);
  cpSync(join(from, 'page.css'), join(to, 'page.css'));
}

if (flags.has('--cuda')) {
  const { status } = spawnSync(process.execPath, [join(root, 'tools/cuda-build.mjs')], { cwd: root, stdio: 'inherit' });
  process.exit(status ?? 1);
}
addon();
typescript();
