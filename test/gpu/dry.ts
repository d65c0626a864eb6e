// Runs tools/gpu-run.sh where there is no GPU: a stub nvidia-smi answers for the driver, and either the emulated library or a
// stand-in for the kernels. A stand-in is a folder laid out as an unpacked bundle, with a fake library and scripts for programs.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

export const root = resolve(import.meta.dirname, '../..');
export const stub = join(import.meta.dirname, 'stub');

export interface Part {
  name: string;
  state: 'passed' | 'failed' | 'timeout' | 'missing' | 'interrupted';
  exit: number | null;
  seconds: number | null;
  limit: number;
  summary: string;
  files: string[];
}

export interface Run {
  schema: string;
  started: string;
  commit: string | null;
  commitReason?: string;
  dirty: boolean | null;
  kernels: string | null;
  kernelsReason?: string;
  library: string | null;
  device: { name: string; uuid: string; driver: string | null; emulated: boolean | null; reason?: string };
  parts: Part[];
}

export const readJson = (path: string) => JSON.parse(readFileSync(path, 'utf8'));
export const readRun = (out: string): Run => readJson(join(out, 'run.json'));
export const states = (out: string) => Object.fromEntries(readRun(out).parts.map(({ name, state }) => [name, state]));
export const part = (out: string, name: string) => readRun(out).parts.find((one) => one.name === name)!;

/** A folder of its own for PATH: the stubs' names and the real tools', and nothing else. */
export function toolbox(folder: string, stubs: string[], without: string[] = []): string {
  const tools =
    'bash env python3 timeout awk cp df mkdir touch rm realpath dirname cat sleep head tail wc grep git sed nproc';
  mkdirSync(folder, { recursive: true });
  const python = spawnSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).stdout.trim();
  for (const tool of tools.split(' ').filter((name) => !without.includes(name))) {
    const found = spawnSync('bash', ['-c', `command -v ${tool}`], { encoding: 'utf8' }).stdout.trim();
    symlinkSync(tool === 'python3' ? python : found, join(folder, tool));
  }
  for (const name of stubs) symlinkSync(join(stub, name), join(folder, name));
  return folder;
}

export function script(path: string, body: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `#!/usr/bin/env bash\n${body}\n`);
  chmodSync(path, 0o755);
}

/** kernwatt_check: three cases, the seconds each takes in STAND_IN_SECONDS, the last one wrong where STAND_IN_FAILS is set. */
const check = `
while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; shift; done
state=passed
for i in 1 2 3; do
  sleep "\${STAND_IN_SECONDS:-0}"
  [ $i = 3 ] && [ -n "\${STAND_IN_FAILS:-}" ] && state=failed
  echo "{\\"op\\":\\"gemm\\",\\"case\\":\\"$i\\",\\"state\\":\\"$state\\"}" >>"$out"
done
if [ $state = failed ]; then echo '2 passed, 1 failed, 0 declined'; exit 1; fi
echo "3 passed, 0 failed, 0 declined\${STAND_IN_LEAVES:+, $STAND_IN_LEAVES not run}"`;

/** Compiles a file of tests into a library that can be opened at run time. */
function compile(source: string, library: string): void {
  const args = ['-std=c++20', '-O1', '-shared', '-fPIC', '-o', library, join(root, source), '-lpthread'];
  const { status, stderr } = spawnSync('g++', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

/** A folder as an unpacked bundle leaves it, whose library opens an emulated device if the path says so. */
export function standIn(folder: string): string {
  for (const name of ['tools/gpu-run.sh', 'tools/gpu', 'bench/peers/gpu/__init__.py', 'bench/peers/gpu/abi.py'])
    cpSync(join(root, name), join(folder, name), { recursive: true });
  cpSync(join(root, 'bench/peers/gpu/layout.json'), join(folder, 'bench/peers/gpu/layout.json'));
  const build = join(folder, '.build/cuda');
  mkdirSync(join(build, 'lib'), { recursive: true });
  compile('test/native/fake_library.cc', join(build, 'lib/libkernwatt_cuda.so'));
  script(join(build, 'bin/kernwatt_check'), check);
  script(join(build, 'bin/simt_test'), 'echo recorded >"$2"; echo "59 passed, 0 failed"');
  mkdirSync(join(folder, 'test/gpu'), { recursive: true });
  writeFileSync(join(folder, 'test/gpu/cases.jsonl'), '');
  writeFileSync(join(folder, 'bundle.json'), JSON.stringify({ commit: '1'.repeat(40), dirty: false }));
  return folder;
}

export interface Options {
  env?: Record<string, string>;
  /** Instead of the whole environment's PATH after the stubs. */
  path?: string;
}

function environment({ env = {}, path }: Options): NodeJS.ProcessEnv {
  const { CUDA_VISIBLE_DEVICES: _, ...own } = process.env;
  return { ...own, CUDA_HOME: '/nowhere', PATH: path ?? `${stub}:${process.env.PATH}`, ...env };
}

/** Runs `tools/gpu-run.sh OUT part...` of a checkout or stand-in to its end. */
export function gpuRun(home: string, out: string, parts: string[] = [], options: Options = {}) {
  const args = [join(home, 'tools/gpu-run.sh'), ...(out ? [out] : []), ...parts];
  return spawnSync('bash', args, { encoding: 'utf8', env: environment(options), timeout: 120_000 });
}

/** Starts it, sends a signal once `ready` says so, and resolves with the exit status. */
export async function interrupt(
  home: string,
  out: string,
  parts: string[],
  signal: NodeJS.Signals,
  ready: () => boolean,
  options: Options,
): Promise<{ status: number | null; stdout: string }> {
  const child = spawn('bash', [join(home, 'tools/gpu-run.sh'), out, ...parts], { env: environment(options) });
  let stdout = '';
  child.stdout.on('data', (text) => {
    stdout += text;
  });
  const timer = setInterval(() => {
    if (!ready()) return;
    clearInterval(timer);
    child.kill(signal);
  }, 20);
  const status = await new Promise<number | null>((done) => child.on('close', done));
  clearInterval(timer);
  return { status, stdout };
}

const build = join(root, '.build/cuda');
export const emulator = join(build, 'lib/libkernwatt_emu.so');
export const hasEmulator = existsSync(emulator);

/** Whether all that a bundle holds is built: kernels.json names this very library. */
export function isBuilt(): boolean {
  const files = ['lib/libkernwatt_cuda.so', 'bin/kernwatt_check', 'bin/simt_test_gpu', 'kernels.json'];
  if (!hasEmulator || !files.every((file) => existsSync(join(build, file)))) return false;
  const library = createHash('sha256')
    .update(readFileSync(join(build, files[0]!)))
    .digest('hex');
  return readJson(join(build, 'kernels.json')).library === library;
}
export const removeTree = (path: string) => rmSync(path, { recursive: true, force: true });
