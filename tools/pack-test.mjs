// The package as its users get it: packs it, checks what is inside, installs it with three package managers into empty folders, and
// uses it on every supported line of Node, from ESM, require(), TypeScript, a bundler and the command line. Exits 1 on the first
// thing that is not as promised. Needs the npm registry, for the package's dependencies and the tools named below.
//
//   node tools/pack-test.mjs
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, normalize } from 'node:path';
import { fetchPackage, lines, nodeBinary, nodeEnvironment } from './nodes.mjs';
import { root } from './stage.mjs';

/** Versions tested with; a newer one is a change to look at. */
const tools = { npm: '12.2.0', pnpm: '12.21.0', publint: '0.3.25', attw: '0.18.5', esbuild: '0.28.2' };
/** Bytes of the tarball, with and without the library of CUDA kernels (21 MB with attention over pages and latents; a budget of 30 MB). */
const limit = { cuda: 26e6, cpu: 2e6 };

const scratch = mkdtempSync(join(tmpdir(), 'kernwatt-pack-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
const started = performance.now();
const said = (line) =>
  process.stdout.write(`${((performance.now() - started) / 1000).toFixed(0).padStart(4)} s  ${line}\n`);

function stop(message) {
  process.stderr.write(`pack-test: ${message}\n`);
  process.exit(1);
}

/** Runs a command to its end; any failure, or output that `refuse` matches, ends this program with that output. */
function run(command, args, { refuse = null, ...options } = {}) {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', ...options });
  const output = `${stdout}${stderr}`;
  if (error || status !== 0) stop(`${command} ${args.join(' ')}: ${error?.message ?? signal ?? status}\n${output}`);
  if (refuse?.test(output)) stop(`${command} ${args.join(' ')} says\n${output}`);
  return { stdout, stderr };
}

/** The settings of this user's package managers must not decide what is tested; what is downloaded is kept for the next run. */
const clean = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|pnpm_|xdg_)/i.test(name))),
  HOME: join(scratch, 'home'),
  NO_COLOR: '1',
  npm_config_cache: join(root, '.build/node/npm-cache'),
  npm_config_audit: 'false',
  npm_config_fund: 'false',
  npm_config_update_notifier: 'false',
};
mkdirSync(clean.HOME);

function pack() {
  const { stdout } = run('npm', ['pack', '--json', '--silent', '--pack-destination', scratch], {
    cwd: root,
    env: clean,
  });
  const [{ filename, files, size }] = JSON.parse(stdout.slice(stdout.indexOf('[\n')));
  const names = files.map(({ path }) => path);
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const allowed = [
    /^(LICENSE|README\.md|CHANGELOG\.md|CONTRIBUTING\.md|THIRD_PARTY\.md|package\.json)$/,
    /^dist\/[\w./-]+\.(js|d\.ts)$/,
    /^dist\/schema\/\w+\.json$/,
    /^prebuilds\/linux-x64\/(kernwatt\.node|libkernwatt_cuda\.so|manifest\.json)$/,
    /^(docs|examples|bench)\/[\w.-]+\.(md|mjs)$/,
    /^native\/(meter\/)?\w+\.(cc|h|gypi|map)$/,
    /^kernels\/[\w/]+\.(cc|h)$/,
    /^tools\/(from-source|sources|stage)\.mjs$/,
  ];
  const forbidden = /binding\.gyp|\.map$|tsbuildinfo|(^|\/)\./;
  for (const name of names)
    if (!allowed.some((pattern) => pattern.test(name)) || (forbidden.test(name) && name !== 'native/addon.map'))
      stop(`${name} is in the tarball, expected to stay out`);
  const wanted = ['LICENSE', 'THIRD_PARTY.md', 'dist/index.d.ts', 'prebuilds/linux-x64/kernwatt.node'];
  const entries = Object.values(manifest.exports).flatMap((value) =>
    Object.values(typeof value === 'string' ? [value] : value),
  );
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const links = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path]) => path);
  for (const name of [...wanted, ...entries, ...Object.values(manifest.bin), ...links].map(normalize))
    if (!names.includes(name) && !names.some((file) => file.startsWith(`${name}/`)))
      stop(`${name} is not in the tarball, expected there`);
  for (const script of ['preinstall', 'install', 'postinstall'])
    if (manifest.scripts[script]) stop(`package.json has the script ${script}, expected none that runs on installing`);
  if (manifest.gypfile !== false) stop('package.json: gypfile is not false; npm would compile');
  const prebuilt = JSON.parse(readFileSync(join(root, 'prebuilds/linux-x64/manifest.json'), 'utf8'));
  const kind = prebuilt.files['libkernwatt_cuda.so'] ? 'cuda' : 'cpu';
  if (size > limit[kind]) stop(`the tarball has ${size} bytes, expected at most ${limit[kind]} (${kind})`);
  said(`packed: ${names.length} files, ${size} bytes, ${kind}, glibc ${prebuilt.glibc}`);
  return join(scratch, filename);
}

function lintPackage(tarball) {
  const npx = (name, version, args) =>
    run('npx', ['--yes', `${name}@${version}`, ...args], { cwd: scratch, env: clean });
  npx('publint', tools.publint, ['run', tarball, '--strict', '--pack=false']);
  said(`publint ${tools.publint}: clean`);
  npx('@arethetypeswrong/cli', tools.attw, [tarball, '--profile', 'esm-only']);
  said(`attw ${tools.attw}, esm-only: clean`);
}

/** How each manager is started: npm as it is here, and newer ones under a Node that they support. */
function managers() {
  const npm = join(root, '.build/node', `npm-${tools.npm}`);
  const pnpm = join(root, '.build/node', `pnpm-${tools.pnpm}`);
  if (!existsSync(npm)) fetchPackage(`npm@${tools.npm}`, npm);
  if (!existsSync(pnpm)) fetchPackage(`@pnpm/exe.linux-x64@${tools.pnpm}`, pnpm);
  const here = run('npm', ['--version'], { env: clean }).stdout.trim();
  const withNpm = (command, first, env) => (args, cwd) =>
    run(command, [...first, ...args], { cwd, env, refuse: noise });
  return [
    { name: `npm ${here}`, again: ['ci'], start: withNpm('npm', [], clean) },
    {
      name: `npm ${tools.npm}`,
      again: ['ci'],
      start: withNpm(nodeBinary('24'), [join(npm, 'bin/npm-cli.js')], nodeEnvironment('24', clean)),
    },
    {
      name: `pnpm ${tools.pnpm}`,
      again: ['install', '--frozen-lockfile'],
      start: withNpm(join(pnpm, 'pnpm'), [], nodeEnvironment('22', clean)),
    },
  ];
}

/** What no installation may say: that a script ran, was blocked or awaits approval, or that something was compiled. */
const noise = /\bwarn|scripts?\b|node-gyp|gyp |rebuild|approve|deprecated/i;

function project(name, tarball) {
  const folder = join(scratch, name.replaceAll(/[^\w.]/g, '-'));
  mkdirSync(folder);
  // What the script imports besides; npm would find kernwatt's own, pnpm would not.
  const { tinybench } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).dependencies;
  const dependencies = { kernwatt: `file:${tarball}`, tinybench };
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, dependencies }));
  return folder;
}

function install({ name, start, again }, tarball) {
  const folder = project(name, tarball);
  start(['install'], folder);
  rmSync(join(folder, 'node_modules'), { recursive: true });
  start(again, folder);
  if (existsSync(join(folder, 'node_modules/kernwatt/build')))
    stop(`${name} compiled the addon, expected it to run nothing`);
  said(`${name}: install and ${again[0]} say nothing and run nothing`);
  return folder;
}

const known = `
  const device = await openDevice('cpu');
  const x = device.tensor(Float32Array.of(1, 2, 3, 4), [2, 2]);
  const { y } = gemm({ x, w: x });
  const got = [...(await y.read())].join();
  if (got !== '5,11,11,25') throw new Error('gemm gives ' + got);
  await device.close();`;
/** With a GPU or without. */
const gpus = `
  const nvml = await openNvml().catch((error) => error);
  if (nvml instanceof Error && nvml.code !== 'ERR_KERNWATT_NVML') throw nvml;`;
/** A file that is not there is named. */
const absent = `
  const refused = await openSafetensors('nowhere').catch((error) => error);
  if (refused.code !== 'ERR_KERNWATT_FILE') throw refused;`;
const programs = {
  'esm.mjs': `import { gemm, openDevice } from 'kernwatt';\nimport { openNvml } from 'kernwatt/nvml';\nimport { openSafetensors } from 'kernwatt/checkpoint';${known}${gpus}${absent}\nconsole.log('ok');\n`,
  'cjs.cjs': `const { gemm, openDevice } = require('kernwatt');\n(async () => {${known}\nconsole.log('ok'); })();\n`,
  'types.mts': `import { gemm, KernwattError, openDevice, type Tensor, type TensorData } from 'kernwatt';
import { type Checkpoint, CheckpointError, openSafetensors } from 'kernwatt/checkpoint';
import { type Exporter, openExporter } from 'kernwatt/prometheus';
import { deviceTask } from 'kernwatt/tinybench';
import { type Gpu, type NvmlError, openNvml } from 'kernwatt/nvml';
const device = await openDevice('cpu', { threads: 1 });
const x: Tensor = device.zeros([2, 2]);
const { y } = gemm({ x, w: x, activation: 'silu' });
const values: TensorData = await y.read();
console.log(values.length, new KernwattError('BUSY', '').code satisfies string);
// @ts-expect-error no such activation
gemm({ x, w: x, activation: 'no such' });
const watts = async (gpu: Gpu): Promise<number> => gpu.power();
const refused: NvmlError | Gpu[] = await openNvml().then((nvml) => nvml.devices(), (error: NvmlError) => error);
console.log(watts, refused);
const seconds: number = (await deviceTask(gemm.bind({ x, w: x }), 4)()).overriddenDuration / 1000;
const exporter: Exporter = await openExporter({ devices: [device] });
const page: string = await exporter.metrics();
const weights: Checkpoint | CheckpointError = await openSafetensors('nowhere').catch((error: CheckpointError) => error);
`,
};

/** The script that the documentation tells to copy. */
const micro = readFileSync(join(root, 'examples/micro-bench.mjs'), 'utf8');

/** Imports, answers and the command, under one Node. */
function use(folder, line) {
  const env = nodeEnvironment(line, clean);
  const node = (...args) => run(nodeBinary(line), args, { cwd: folder, env });
  for (const program of ['esm.mjs', 'cjs.cjs']) {
    const { stdout, stderr } = node(program);
    if (stdout !== 'ok\n' || stderr !== '') stop(`${program} under Node ${line} prints\n${stdout}${stderr}`);
  }
  const command = join(folder, 'node_modules/kernwatt/dist/cli/main.js');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const expected = { '--version': `${version}\n`, ops: 'gemm: ', doctor: `kernwatt  ${version}` };
  for (const [argument, begin] of Object.entries(expected)) {
    const { stdout, stderr } = node(command, argument);
    if (!stdout.includes(begin) || stderr !== '')
      stop(`kernwatt ${argument} under Node ${line} prints\n${stdout}${stderr}`);
  }
  const { addon, energy } = JSON.parse(node(command, 'doctor', '--json').stdout);
  if (addon.state !== 'ok' || energy.length === 0)
    stop(`doctor under Node ${line}: addon is ${addon.state}, expected ok`);
  run(join(folder, 'node_modules/.bin/kernwatt'), ['--version'], { cwd: folder, env });
  writeFileSync(join(folder, 'mine.mjs'), micro);
  const { stdout, stderr } = node(command, 'bench', './mine.mjs', '--backend', 'cpu');
  if (!/^on the device +\d/m.test(stdout) || stderr !== '')
    stop(`kernwatt bench ./mine.mjs under Node ${line} prints\n${stdout}${stderr}`);
  said(`Node ${line}: import, require, gemm, --version, ops, doctor, bench of a script`);
}

function types(folder) {
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  mkdirSync(join(folder, 'node_modules/@types'), { recursive: true });
  rmSync(join(folder, 'node_modules/@types/node'), { recursive: true, force: true });
  symlinkSync(join(root, 'node_modules/@types/node'), join(folder, 'node_modules/@types/node'));
  for (const [module, resolution] of [
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ]) {
    const flags = [
      '--strict',
      '--noEmit',
      '--target',
      'es2022',
      '--lib',
      'es2023,esnext.disposable',
      '--types',
      'node',
    ];
    run(process.execPath, [tsc, ...flags, '--module', module, '--moduleResolution', resolution, 'types.mts'], {
      cwd: folder,
    });
  }
  said('types: nodenext and bundler resolution');
}

/** Marked external, as the README says, a bundle works; bundled all the same, it says what to do. */
function bundle(folder) {
  const build = (out, ...flags) =>
    run(
      'npx',
      [
        '--yes',
        `esbuild@${tools.esbuild}`,
        'esm.mjs',
        '--bundle',
        '--platform=node',
        '--format=esm',
        `--outfile=${out}`,
        ...flags,
      ],
      { cwd: folder, env: clean },
    );
  build('bundle.mjs', '--external:kernwatt');
  if (run(process.execPath, ['bundle.mjs'], { cwd: folder }).stdout !== 'ok\n') stop('bundle.mjs does not print ok');
  mkdirSync(join(folder, 'out'));
  build('out/whole.mjs');
  const { status, stderr } = spawnSync(process.execPath, ['out/whole.mjs'], { cwd: folder, encoding: 'utf8' });
  if (status !== 1 || !/mark kernwatt as external/.test(stderr) || !/ERR_KERNWATT_LIBRARY/.test(stderr))
    stop(`a bundle that swallowed kernwatt ends with ${status}, expected 1 and what to do:\n${stderr}`);
  said(`esbuild ${tools.esbuild}: external works, bundled says what to do`);
}

const tarball = pack();
lintPackage(tarball);
const folders = managers().map((manager) => install(manager, tarball));
for (const folder of folders)
  for (const [name, text] of Object.entries(programs)) writeFileSync(join(folder, name), text);
for (const line of lines) use(folders[0], line);
use(folders[1], '24');
use(folders[2], '22');
types(folders[0]);
bundle(folders[0]);
