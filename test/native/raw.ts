// The addon without the TypeScript above it, as its own tests use it.
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { dtypes } from '../../src/dtype.js';
import { type DeviceHandle, type NativeView, native, type PlanHandle, type StreamHandle } from '../../src/native.js';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
/** The addon's file, for child processes. */
export const addonFile = resolve(root, process.env.KERNWATT_ADDON ?? 'build/Release/kernwatt.node');

export type Options = Parameters<ReturnType<typeof native>['openDevice']>[0];

/** A device with one stream, and the little that tests need on top. */
export class Bench {
  private constructor(
    readonly device: DeviceHandle,
    readonly stream: StreamHandle,
  ) {}

  static async open(options: Options = { kind: 'cpu', threads: 2 }): Promise<Bench> {
    const device = await native().openDevice(options);
    return new Bench(device, native().createStream(device));
  }

  /** Row-major, on memory of its own. */
  empty(shape: number[], dtype: (typeof dtypes)[number] = 'f32'): NativeView {
    const stride = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = { f32: 4, i32: 4, f16: 2, bf16: 2 }[dtype as string] ?? 1;
    return {
      buffer: native().alloc(this.device, count * bytes),
      offset: 0,
      dtype: dtypes.indexOf(dtype),
      shape,
      stride,
    };
  }

  tensor(data: ArrayLike<number>, shape: number[] = [data.length]): NativeView {
    const view = this.empty(shape);
    native().write(this.stream, view, Float32Array.from(data), false);
    return view;
  }

  async read(view: NativeView): Promise<number[]> {
    const into = new Float32Array(view.shape.reduce((a, b) => a * b, 1));
    await native().read(this.stream, view, into, false);
    return [...into];
  }

  plan(args: Record<string, unknown>, backend: 'ref' | 'cpu' | 'library' = 'cpu'): PlanHandle {
    return native().createPlan('gemm', backend, this.stream, args);
  }

  /** y = x wᵀ of n x n matrices, queued on call. */
  square(n: number): { plan: PlanHandle; enqueue: () => void; args: Record<'x' | 'w' | 'y', NativeView> } {
    const args = { x: this.empty([n, n]), w: this.empty([n, n]), y: this.empty([n, n]) };
    native().fill(this.stream, args.x, 'normal', 1, 0, 1);
    native().fill(this.stream, args.w, 'normal', 2, 0, 1);
    const plan = this.plan(args);
    return { plan, enqueue: native().enqueueFunction(plan), args };
  }

  mark(): Promise<void> {
    return native().mark(this.stream);
  }

  close(): Promise<void> {
    return native().closeDevice(this.device);
  }
}

let copies = 0;

/** fake_library.cc, compiled once; a name picks its behaviour (see there) and makes it another library to the loader. */
export function fakeLibrary(name = 'fake'): string {
  const source = join(root, 'test/native/fake_library.cc');
  const folder = join(root, '.build/test');
  const library = join(folder, 'libfake.so');
  mkdirSync(folder, { recursive: true });
  const inputs = [source, ...['core/abi.h', 'core/plan.h', 'gemm/gemm.h'].map((file) => join(root, 'kernels', file))];
  if (!existsSync(library) || inputs.some((file) => statSync(library).mtimeMs < statSync(file).mtimeMs)) {
    const made = `${library}.${process.pid}`;
    const flags = ['-std=c++20', '-O1', '-g', '-shared', '-fPIC', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror'];
    const env = { ...process.env, LD_PRELOAD: '' };
    execFileSync('g++', [...flags, '-o', made, source, '-lpthread', '-ldl'], { env, stdio: 'pipe' });
    renameSync(made, library);
  }
  const copy = join(folder, `${name}-${process.pid}-${copies++}.so`);
  copyFileSync(library, copy);
  return copy;
}

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;

/** Several collections: the first finds what is dead, later ones what its finalizers let go. */
export async function collect(): Promise<void> {
  for (let i = 0; i < 4; i++) {
    gc();
    await new Promise((done) => setImmediate(done));
  }
}
