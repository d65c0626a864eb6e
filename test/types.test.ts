// Misuse that must not compile, and types that must come out right. tsc checks this file (`npm run check`).
import { resolve } from 'node:path';
import ts from 'typescript';
import { expect, expectTypeOf, test } from 'vitest';
import {
  attentionGqa,
  attentionMerge,
  type CallOptions,
  type Device,
  type DType,
  gemm,
  type Op,
  type Operator,
  ops,
  type PoolInput,
  type RawData,
  type Tensor,
  type TensorData,
} from '../src/index.js';

declare const t: Tensor;
declare const device: Device;

// None of this runs: the compiler is the test.
const misuse = () => {
  // @ts-expect-error w is missing
  gemm({ x: t });
  // @ts-expect-error misspelled
  gemm({ x: t, w: t, biass: t });
  // @ts-expect-error a number is not a tensor
  gemm({ x: t, w: t, bias: 1 });
  // @ts-expect-error not an activation
  gemm({ x: t, w: t, activation: 'swish' });
  // @ts-expect-error alpha is a number
  gemm({ x: t, w: t, alpha: '1' });
  // @ts-expect-error transX is a flag
  gemm({ x: t, w: t, transX: 1 });
  // @ts-expect-error there is no result of that name
  gemm({ x: t, w: t }).out;
  // @ts-expect-error not a backend
  gemm({ x: t, w: t }, { backend: 'tpu' });
  // @ts-expect-error not an element type
  gemm({ x: t, w: t }, { dtype: 'float32' });
  // @ts-expect-error not an element type
  device.empty([2, 2], 'fp16');
  // @ts-expect-error nested lists are not data
  device.tensor([[1, 2]]);
  // @ts-expect-error low belongs to the uniform distribution
  device.random([2], 'f32', { distribution: 'normal', low: 0 });
  // @ts-expect-error shapes are read-only
  t.shape[0] = 1;
  // @ts-expect-error causal is a flag
  attentionGqa({ q: t, k: t, v: t, causal: 1 });
  // @ts-expect-error lengths are tensors
  attentionGqa({ q: t, k: t, v: t, lensKv: [1, 2] });
  // @ts-expect-error there are no parameters
  attentionMerge({ yParts: t, lseParts: t, scale: 1 });
  // @ts-expect-error plan outputs are named
  gemm.bind({ x: t, w: t }).outputs.z;
  // @ts-expect-error no dimension, tensor or parameter of gemm
  gemm.pool({ m: 8, w: t, rows: 3 });
  // @ts-expect-error results are the pool's own
  gemm.pool({ m: 8, w: t, y: t });
  // @ts-expect-error not an option
  gemm.pool({ m: 8, w: t }, { slot: 3 });
  // @ts-expect-error w is fixed
  gemm.pool({ m: 8, w: t }).run({ x: [1], w: [1] });
  // @ts-expect-error w is missing
  gemm.pool({ m: 8, k: 8, rowsW: 8 }).run({ x: [1] });
  // @ts-expect-error bias is not announced
  gemm.pool({ m: 8, w: t }).run({ x: [1], bias: [1] });
  // @ts-expect-error not a kind of result
  gemm.pool({ m: 8, w: t }).run({ x: [1] }, { as: 'list' });
};

test('arguments and results have the types of the declaration', () => {
  type Arguments = Parameters<typeof gemm>[0];
  expectTypeOf<Arguments['x']>().toEqualTypeOf<Tensor>();
  expectTypeOf<Arguments['bias']>().toEqualTypeOf<Tensor | undefined>();
  expectTypeOf<Arguments['y']>().toEqualTypeOf<Tensor | undefined>();
  expectTypeOf<Arguments['alpha']>().toEqualTypeOf<number | undefined>();
  expectTypeOf<Arguments['transW']>().toEqualTypeOf<boolean | undefined>();
  expectTypeOf<NonNullable<Arguments['activation']>>().toEqualTypeOf<
    'none' | 'relu' | 'gelu_erf' | 'gelu_tanh' | 'silu' | 'swiglu' | 'geglu_erf' | 'geglu_tanh'
  >();
  expectTypeOf<ReturnType<typeof gemm>['y']>().toEqualTypeOf<Tensor>();
  expectTypeOf<keyof ReturnType<typeof gemm>>().toEqualTypeOf<'y'>();
  expectTypeOf<ReturnType<typeof gemm.bind>['outputs']['y']>().toEqualTypeOf<Tensor>();
  expectTypeOf<keyof ReturnType<typeof attentionGqa>>().toEqualTypeOf<'y' | 'lse'>();
  expectTypeOf<Parameters<typeof attentionGqa>[0]['windowLeft']>().toEqualTypeOf<number | undefined>();
  expectTypeOf<Parameters<typeof attentionGqa.spec.work>[0]>().toEqualTypeOf<
    Readonly<
      Record<
        'batch' | 'lenQ' | 'headsQ' | 'dim' | 'lenKv' | 'headsKv' | 'dimV' | 'blocksQ' | 'blocksKv' | 'sequences',
        number
      >
    >
  >();
  expectTypeOf<CallOptions['dtype']>().toEqualTypeOf<DType | undefined>();
  expectTypeOf(misuse).toBeFunction();
});

test('requests and results of a pool have the types of the declaration and the capacity', () => {
  const make = () => gemm.pool({ m: 8, w: t, bias: 'f32', activation: 'relu' });
  type Inputs = Parameters<ReturnType<typeof make>['run']>[0];
  expectTypeOf<Inputs['x']>().toEqualTypeOf<PoolInput>();
  expectTypeOf<Inputs['bias']>().toEqualTypeOf<PoolInput | undefined>();
  expectTypeOf<keyof Inputs>().toEqualTypeOf<'x' | 'bias'>();
  const arrays = () => make().run({ x: [1] });
  const raw = () => make().run({ x: [1] }, { as: 'raw' });
  const tensors = () => make().run({ x: [1] }, { as: 'tensor', signal: AbortSignal.timeout(1) });
  expectTypeOf<Awaited<ReturnType<typeof arrays>>>().toEqualTypeOf<{ y: TensorData }>();
  expectTypeOf<Awaited<ReturnType<typeof raw>>>().toEqualTypeOf<{ y: RawData }>();
  expectTypeOf<Awaited<ReturnType<typeof tensors>>>().toEqualTypeOf<{ y: Tensor }>();
});

test('every operator is an Operator, for code that walks over all of them', () => {
  const all: readonly Operator[] = Object.values(ops);
  expect(all.map((op) => op.spec.name)).toContain('gemm');
  expectTypeOf(gemm).toExtend<Op<typeof gemm.spec.tensors, typeof gemm.spec.params>>();
});

test('an editor shows what each argument means, from the published declarations', () => {
  const root = resolve(import.meta.dirname, '..');
  const file = resolve(root, 'test/editor.ts');
  const text =
    "import { gemm, type Tensor } from '../dist/index.js';\ndeclare const t: Tensor;\ngemm({ x: t, w: t, bias: t, alpha: 2 }).y;\n";
  const options: ts.CompilerOptions = { module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022, strict: true };
  const service = ts.createLanguageService({
    getCompilationSettings: () => options,
    getScriptFileNames: () => [file],
    getScriptVersion: () => '1',
    getScriptSnapshot(name) {
      const content = name === file ? text : ts.sys.readFile(name);
      return content === undefined ? undefined : ts.ScriptSnapshot.fromString(content);
    },
    getCurrentDirectory: () => root,
    getDefaultLibFileName: ts.getDefaultLibFilePath,
    fileExists: (name) => name === file || ts.sys.fileExists(name),
    readFile: ts.sys.readFile,
    directoryExists: ts.sys.directoryExists,
  });
  const hover = (word: string) =>
    ts.displayPartsToString(service.getQuickInfoAtPosition(file, text.indexOf(word))?.documentation);
  expect(hover('bias: t')).toContain('Added to every row before the activation');
  expect(hover('alpha: 2')).toContain('Multiplies `x W');
  expect(hover('y;')).toContain('allocated unless given');
  expect(hover('gemm({')).toContain('General matrix multiply with a fused epilogue');
});
