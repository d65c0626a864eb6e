// Which code a kernel is (tools/ptx.mjs, tools/kernels.mjs): from PTX written by hand, and from the compiler where there is one.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Kernel } from './library.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kernwatt-kernels-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const header = `//
// Cuda compilation tools, release 13.0, V13.0.88
//
.version 9.0
.target sm_80
.address_size 64
`;
const scale = (body: string, name = '_ZN2kw5scaleEPf') => `.entry ${name}(
	.param .u64 ${name}_param_0
)
.maxntid 128, 1, 1
{
	.reg .f32 	%f<3>;
	.loc	1 30 0
	// a comment; with a brace {
${body}
$L__BB0_1:
	ret;

}
`;
const flags = [
  '13.0.88',
  '/usr/bin/nvcc',
  '-O3',
  '-lineinfo',
  '-DX=1',
  '-gencode',
  'arch=compute_80,code=[sm_80,compute_80]',
];

interface Kernels {
  schema: string;
  commit: string;
  library: string;
  digest: string;
  nvcc: string;
  kernels: Kernel[];
}

/** Lays out a build folder with one object of the library. */
function object(ptx: string | null, op = 'gemm', given = flags, log = '') {
  const path = join(folder, 'CMakeFiles/kernwatt_cuda_portable.dir/kernels', op, `${op}_cuda.cu.o`);
  mkdirSync(dirname(path), { recursive: true });
  mkdirSync(join(folder, 'lib'), { recursive: true });
  writeFileSync(join(folder, 'lib/libkernwatt_cuda.so'), 'library');
  writeFileSync(path, '');
  writeFileSync(`${path}.ptxas`, log);
  if (ptx !== null) {
    writeFileSync(`${path}.${op}_cuda.ptx`, ptx);
    writeFileSync(`${path}.flags`, `${given.join('\n')}\n`);
  }
}

function identify(): { status: number | null; stderr: string; content: Kernels | null } {
  const { status, stderr } = spawnSync(process.execPath, ['tools/kernels.mjs', folder], { encoding: 'utf8' });
  return {
    status,
    stderr,
    content: status === 0 ? JSON.parse(readFileSync(join(folder, 'kernels.json'), 'utf8')) : null,
  };
}
/** The hashes of a file's kernels, by symbol. */
function hashes(ptx: string): Record<string, string> {
  object(ptx);
  return Object.fromEntries(identify().content!.kernels.map((kernel) => [kernel.symbol, kernel.hash]));
}
const hash = (ptx: string) => Object.values(hashes(ptx))[0]!;

describe('kernels.json', () => {
  test('names kernels as people read them, with the code that each machine runs', () => {
    object(header + scale('	mov.f32 	%f1, 0f3F800000;'));
    const { content } = identify();
    expect(content).toMatchObject({
      schema: 'kernwatt.kernels/0',
      nvcc: '13.0.88',
      library: createHash('sha256').update('library').digest('hex'),
      kernels: [
        { symbol: '_ZN2kw5scaleEPf', name: 'scale', arch: 'sm_80', ptxas: '13.0.88', flags: '-O3', ops: ['gemm'] },
      ],
    });
    expect(content!.kernels).toHaveLength(1); // the embedded PTX is nobody's machine code
  });

  test('a kernel in two objects is one, if it is the same code', () => {
    const text = header + scale('	mov.f32 	%f1, 0f3F800000;');
    object(text, 'gemm');
    object(text, 'attention');
    expect(identify().content!.kernels).toMatchObject([{ ops: ['attention', 'gemm'] }]);
    object(header + scale('	mov.f32 	%f1, 0f40000000;'), 'gemm');
    expect(identify()).toMatchObject({ status: 1, stderr: expect.stringContaining('compiled differently') });
  });

  test('the digest follows code and ptxas, not the path or the symbol', () => {
    const digest = (body: string, given = flags) => {
      object(header + scale(body), 'gemm', given);
      return identify().content!.digest;
    };
    const first = digest('	mov.f32 	%f1, 0f3F800000;');
    expect(digest('	mov.f32 	%f1, 0f3F800000;', [...flags, '-I', '/else/where', '-Xcompiler=-Wall'])).toBe(first);
    expect(digest('	mov.f32 	%f1, 0f40000000;')).not.toBe(first);
    expect(digest('	mov.f32 	%f1, 0f3F800000;', ['13.3.20', ...flags.slice(1)])).not.toBe(first);
    expect(digest('	mov.f32 	%f1, 0f3F800000;', [...flags, '-Xptxas=-O1'])).not.toBe(first);
  });

  test.each([
    ['no PTX beside it', null, ''],
    ['the file ends within', `${header}.entry x(\n)\n{\n`, ''],
    ['which its flags do not name', header.replace('sm_80', 'sm_90a') + scale(''), ''],
    ['but its PTX lacks it', header + scale(''), "ptxas info    : Compiling entry function '_Z5otherv' for 'sm_80'\n"],
  ])('says so when an object is incomplete: %s', (what, ptx, log) => {
    object(ptx, 'gemm', flags, log);
    const { status, stderr } = identify();
    expect(status).toBe(1);
    expect(stderr).toContain(what);
    expect(stderr).toContain('gemm_cuda.cu.o');
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('a folder without a library says how to make one', () => {
    expect(identify()).toMatchObject({ status: 1, stderr: expect.stringContaining('npm run build:cuda') });
  });
});

describe('the hash of a kernel', () => {
  const body = '	mov.f32 	%f1, 0f3F800000;';

  test('ignores line information, comments, spacing and debug sections', () => {
    const bare = (header + scale(body)).replace(/^\s*(\.loc|\/\/).*\n/gm, '').replace(/\t/g, ' ');
    const debug = '	.file	1 "/some/where/x.cu"\n	.section	.debug_str\n	{\n$L__info_string0:\n.b8 95,90,0\n\n	}\n';
    expect(hash(bare)).toBe(hash(header + scale(body) + debug));
  });

  test('ignores the hash of the file and the process id in names, and the place of the kernel in the file', () => {
    const name = (unit: string) => `_ZN2kw${unit.length}${unit}5scaleEPf`;
    const one = hash(header + scale(body, name('_GLOBAL__N__aaaaaaaa_4_x_cu_01138b05_999')));
    const other = hashes(
      header +
        scale('	mov.f32 	%f1, 0f00000000;', '_Z5firstPf') +
        scale(body, name('_GLOBAL__N__bbbbbbbb_4_x_cu_01138b05_12345')).replace('$L__BB0_1', '$L__BB1_1'),
    );
    expect(Object.values(other)).toContain(one);
  });

  test('covers what the kernel refers to, through others too, and nothing else', () => {
    const file = (constant: string, unused: string) => `${header}
.const .align 4 .b8 table[4] = {${constant}, 0, 0, 0};
.const .align 4 .b8 unused[4] = {${unused}, 0, 0, 0};
.func  (.param .b32 func_retval0) helper(
	.param .b32 helper_param_0
)
;
${scale('	call.uni (retval0), helper, (param0);')}
${scale('	mov.f32 	%f1, 0f00000000;', '_Z5alonePf')}
.func  (.param .b32 func_retval0) helper(
	.param .b32 helper_param_0
)
{
	ld.const.f32 	%f1, [table];
	ret;
}
`;
    const [before, constant, unused] = [hashes(file('1', '1')), hashes(file('2', '1')), hashes(file('1', '2'))];
    expect(constant._ZN2kw5scaleEPf).not.toBe(before._ZN2kw5scaleEPf);
    expect(constant._Z5alonePf).toBe(before._Z5alonePf);
    expect(unused).toEqual(before);
  });

  test('follows an instruction, a launch bound, and the architecture', () => {
    const texts = [
      header + scale(body),
      header + scale(body.replace('3F', '40')),
      header + scale(body).replace('128, 1, 1', '256, 1, 1'),
      header.replace('9.0', '9.1') + scale(body),
    ];
    expect(new Set(texts.map(hash)).size).toBe(texts.length);
  });
});

const nvcc = ['nvcc', '/usr/local/cuda/bin/nvcc'].find((command) => spawnSync(command, ['--version']).status === 0);
describe.skipIf(!nvcc)('compiled by nvcc (needs the CUDA toolkit)', () => {
  const source = (factor: number) => `
namespace {
__constant__ float table[4] = {1, 2, 3, 4};
__device__ __noinline__ float helper(float x) { return x * ${factor}.f; }
__global__ void hidden(float* p, int i) { static __shared__ float q[32]; q[i] = p[i]; __syncthreads(); p[i] = q[31 - i] + table[i & 3]; }
__global__ void calls(float* p) { p[0] = helper(p[1]); }
}
extern "C" __global__ void local(float* p, int i) {
  float a[64];
  for (int j = 0; j < 64; ++j) a[(j * i) & 63] = p[j];
  p[i] = a[i & 63];
}
void use() { hidden<<<1, 1>>>(nullptr, 0); calls<<<1, 1>>>(nullptr); local<<<1, 1>>>(nullptr, 0); }
`;
  /** Through the launcher, as the build does it: a source in its own folder, an object of the library. */
  function compile(where: string, text: string): Kernel[] {
    const object = join(folder, where, 'CMakeFiles/kernwatt_cuda.dir/kernels/x/x.cu.o');
    mkdirSync(dirname(object), { recursive: true });
    mkdirSync(join(folder, where, 'lib'));
    writeFileSync(join(folder, where, 'lib/libkernwatt_cuda.so'), '');
    writeFileSync(join(folder, where, 'x.cu'), text);
    const codes = ['-gencode', 'arch=compute_80,code=[sm_80,compute_80]', '-gencode', 'arch=compute_90,code=sm_90'];
    const launcher = spawnSync(
      'sh',
      [resolve('tools/ptxas-log.sh'), nvcc!, '-O3', '-lineinfo', '-Xptxas=-v', ...codes, '-c', 'x.cu', '-o', object],
      { cwd: join(folder, where), encoding: 'utf8' },
    );
    expect(launcher.stderr).toBe('');
    const made = spawnSync(process.execPath, ['tools/kernels.mjs', join(folder, where)], { encoding: 'utf8' });
    expect(made.stderr).toBe('');
    return JSON.parse(readFileSync(join(folder, where, 'kernels.json'), 'utf8')).kernels;
  }
  const identities = (kernels: Kernel[]) => kernels.map(({ name, arch, hash }) => `${name} ${arch} ${hash}`);

  test('the same from another folder with another comment; a changed constant changes its kernels alone', () => {
    const first = compile('one', source(2));
    expect(first.map(({ name, arch }) => `${name} ${arch}`)).toEqual([
      '(anonymous namespace)::calls sm_80',
      '(anonymous namespace)::calls sm_90',
      '(anonymous namespace)::hidden sm_80',
      '(anonymous namespace)::hidden sm_90',
      'local sm_80',
      'local sm_90',
    ]);
    expect(identities(compile('another/folder', `// a comment\n${source(2)}`))).toEqual(identities(first));
    const changed = identities(compile('changed', source(3)));
    const same = identities(first).filter((identity) => changed.includes(identity));
    expect(same.map((identity) => identity.split(' sm_')[0])).toEqual([
      '(anonymous namespace)::hidden',
      '(anonymous namespace)::hidden',
      'local',
      'local',
    ]);
  });
});
