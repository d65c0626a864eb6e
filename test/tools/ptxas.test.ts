// The gate on ptxas reports (tools/ptxas.mjs), fed with reports as nvcc 13 writes them.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kernwatt-ptxas-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const report = (stores: number, loads: number) => `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN2kw5scaleEPf' for 'sm_80'
ptxas info    : Function properties for _ZN2kw5scaleEPf
    ${stores + loads} bytes stack frame, ${stores} bytes spill stores, ${loads} bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 2048 bytes smem, 704 bytes cmem[0]
ptxas info    : Compile time = 12.3 ms
`;

interface Verdict {
  kernels: { kernel: string; arch: string; registers: number; spillBytes: number; smemBytes: number }[];
  broken: string[];
}

function gate(log: string, waivers: object[]): { status: number | null; verdict: Verdict } {
  writeFileSync(join(folder, 'x.cu.o'), '');
  writeFileSync(join(folder, 'x.cu.o.ptxas'), log);
  writeFileSync(join(folder, 'waivers.json'), JSON.stringify(waivers));
  const { status, stdout } = spawnSync(
    process.execPath,
    ['tools/ptxas.mjs', folder, '--json', '--waivers', join(folder, 'waivers.json')],
    { encoding: 'utf8' },
  );
  return { status, verdict: JSON.parse(stdout) };
}

test('a kernel that does not spill passes', () => {
  const { status, verdict } = gate(report(0, 0), []);
  expect(status).toBe(0);
  expect(verdict.kernels).toMatchObject([{ arch: 'sm_80', registers: 64, spillBytes: 0, smemBytes: 2048 }]);
});

test('a spill fails, and passes with a waiver of at least its size', () => {
  const { status, verdict } = gate(report(8, 12), []);
  expect(status).toBe(1);
  expect(verdict.broken).toEqual([expect.stringMatching(/\(sm_80\) spills 20 bytes, expected at most 0$/)]);
  const waiver = { kernel: verdict.kernels[0]!.kernel, arch: 'sm_80', bytes: 20, reason: 'measured: no slower' };
  expect(gate(report(8, 12), [waiver]).status).toBe(0);
  expect(gate(report(8, 16), [waiver]).verdict.broken).toEqual([expect.stringContaining('expected at most 20')]);
  expect(gate(report(8, 12), [{ ...waiver, arch: 'sm_90' }]).status).toBe(1);
});

test('a waiver that is no longer needed, or gives no reason, fails', () => {
  const { verdict } = gate(report(0, 0), [{ kernel: 'scale', arch: 'sm_80', bytes: 4, reason: '' }]);
  expect(verdict.broken).toEqual([
    'the waiver for scale (sm_80) is no longer needed',
    'the waiver for scale (sm_80) gives no reason',
  ]);
});

test('a C75xx message fails', () => {
  const message = 'ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized';
  const { status, verdict } = gate(`${report(0, 0)}${message} due to insufficient register resources\n`, []);
  expect(status).toBe(1);
  expect(verdict.broken).toEqual([expect.stringContaining('C7510')]);
});

test('a report without usage fails rather than passing unread', () => {
  const { verdict } = gate("ptxas info    : Compiling entry function 'x' for 'sm_90a'\n", []);
  expect(verdict.broken).toEqual(['x (sm_90a): ptxas reported no usage']);
});

test('a folder without reports fails', () => {
  const { status, stderr } = spawnSync(process.execPath, ['tools/ptxas.mjs', folder], { encoding: 'utf8' });
  expect(status).toBe(1);
  expect(stderr).toContain('npm run build:cuda');
});
