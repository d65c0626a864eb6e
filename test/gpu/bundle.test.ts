// tools/gpu-bundle.sh, and tools/gpu-run.sh out of what it packs.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { emulator, gpuRun, isBuilt, readRun, removeTree, root, standIn, states, toolbox } from './dry.js';

let folder: string;
let path: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kernwatt-emulated-'));
  path = toolbox(join(folder, 'bin'), ['nvidia-smi']);
});
afterAll(() => removeTree(folder));

test('a bundle is unpacked beside the scripts, once, and what is in it is run', () => {
  const home = standIn(join(folder, 'home'));
  const out = join(folder, 'out');
  const packed = join(folder, 'bundle.tar');
  expect(spawnSync('tar', ['-C', home, '-cf', packed, '.']).status).toBe(0);
  const bare = join(folder, 'bare');
  mkdirSync(bare);
  for (const name of ['tools', 'bench']) cpSync(join(home, name), join(bare, name), { recursive: true });
  const env = { KERNWATT_GPU_BUNDLE: packed };
  expect(gpuRun(bare, out, ['check'], { path, env }).status).toBe(0);
  expect(readRun(out)).toMatchObject({ commit: '1'.repeat(40) });
  const kept = join(bare, '.gpu/bundle/kept');
  writeFileSync(kept, '');
  expect(gpuRun(bare, out, ['check'], { path, env }).status).toBe(0);
  expect(existsSync(kept)).toBe(true);
});

describe('tools/gpu-bundle.sh', () => {
  const bundle = (home: string, to: string) =>
    spawnSync('bash', [join(home, 'tools/gpu-bundle.sh'), to], {
      encoding: 'utf8',
      env: { ...process.env, XZ_OPT: '-0' },
    });

  test('names what is missing, each with the command that makes it', () => {
    const bare = join(folder, 'unbuilt');
    cpSync(join(root, 'tools/gpu-bundle.sh'), join(bare, 'tools/gpu-bundle.sh'));
    const { status, stderr } = bundle(bare, join(folder, 'none.tar.xz'));
    expect(status).toBe(2);
    for (const [file, command] of [
      ['.build/cuda/lib/libkernwatt_cuda.so', 'npm run build:cuda'],
      ['.build/cuda/kernels.json', 'npm run build:cuda'],
      ['build/Release/kernwatt.node', 'npm run build'],
      ['test/gpu/cases.jsonl', 'npm run cases'],
    ])
      expect(stderr).toContain(`${file} is not there; ${command} makes it\n`);
    expect(existsSync(join(folder, 'none.tar.xz'))).toBe(false);
  });

  test.skipIf(!isBuilt())('packs what a machine without Node runs (npm run build:cuda)', () => {
    const packed = join(folder, 'bundle.tar.xz');
    const { status, stdout, stderr } = bundle(root, packed);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/bundle\.tar\.xz: \d\d\.\d MB, commit [0-9a-f]{12}/);
    const bare = join(folder, 'machine');
    mkdirSync(bare);
    expect(spawnSync('tar', ['-C', bare, '-xf', packed]).status).toBe(0);
    const env = { KERNWATT_GPU_LIBRARY: emulator };
    const out = join(folder, 'machine-out');
    expect(gpuRun(bare, out, ['check', 'node', 'probe'], { path, env }).status).toBe(0);
    expect(states(out)).toEqual({ probe: 'passed', check: 'passed', node: 'passed' });
    expect(readRun(out).commit).toMatch(/^[0-9a-f]{40}$/);
  });
});
