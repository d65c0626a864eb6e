// A device: where tensors live and operators run. `cpu` is always there; `cuda:N` and `emu:N` come from libraries of kernels.
import {
  bitsOf,
  bytesOf,
  checkData,
  checkDType,
  type DType,
  elementsIn,
  integerRange,
  isInteger,
  isPaired,
  type NumericData,
  ownDType,
  storedAs,
} from './dtype.js';
import { KernwattError } from './errors.js';
import { type HostBuffer, isHostBuffer, makeHostBuffer } from './host.js';
import { type DeviceInfo, describeDevice } from './info.js';
import type { Library } from './library.js';
import { type DeviceHandle, native } from './native.js';
import type { Packed } from './packed.js';
import { checkLength, countElements, rowMajor, type Shape } from './shape.js';
import { adoptTensor, type SharedTensor } from './share.js';
import { Storage } from './storage.js';
import { Stream } from './stream.js';
import { type Origin, Tensor } from './tensor.js';
import type { Tuned } from './tune/store.js';
import { type UploadOptions, upload } from './upload.js';

export type DeviceKind = 'cpu' | 'cuda' | 'emu';
/** Memory of this library's own tensors and workspaces, exact; `free` and `total` are the device's. */
export interface MemoryUse {
  currentBytes: number;
  peakBytes: number;
  /** Time-weighted average since the device was opened. */
  averageBytes: number;
  /** Integral over time, byte-seconds, and the seconds it covers: differences of two readings give a window's average. */
  byteSeconds: number;
  seconds: number;
  /** Allocations alive. */
  allocations: number;
  /** Held from the system or the GPU: in use, rounded up, or kept for reuse (`trim` gives that back). Now and at most. */
  reservedBytes: number;
  reservedPeakBytes: number;
  /** `memoryLimit` of `openDevice`; null without one. */
  limitBytes: number | null;
  freeBytes: number;
  totalBytes: number;
}

export type RandomOptions = {
  /** Element i depends on the seed and i alone, the same on every device. Default 0. */
  seed?: number | undefined;
  stream?: Stream | undefined;
} & (
  | { /** Default: mean 0, standard deviation 1. */ distribution?: 'normal'; mean?: number; sd?: number }
  | { /** Default: from -1 up to 1. */ distribution: 'uniform'; low?: number; high?: number }
  | {
      /** Whole numbers; default: from -4 to 4, both included, and all there are of 4-bit types. */ distribution: 'integers';
      low?: number;
      high?: number;
    }
);

const distributions = {
  normal: { mean: 0, sd: 1 },
  uniform: { low: -1, high: 1 },
  integers: { low: -4, high: 4 },
} as const;

export class Device {
  readonly kind: DeviceKind;
  /** As `openDevice` takes it: `cpu`, `cuda:0`, `emu:1`. */
  readonly name: string;
  readonly info: DeviceInfo;
  /** The stream that everything uses unless told otherwise. */
  readonly stream: Stream;
  /** Configurations measured by `op.tune()` that calls and plans on this device use; null unless it was opened with `tuned`. */
  readonly tuned: Tuned | null = null;
  /** @internal */
  readonly handle: DeviceHandle;
  /** @internal Opens the same device once more, alike but for a limit of memory: memory and streams of its own. */
  readonly another: () => Promise<Device>;
  #closing: Promise<void> | undefined;

  /** @internal Use `openDevice`. */
  constructor(
    handle: DeviceHandle,
    kind: DeviceKind,
    name: string,
    library: Library | null,
    another: () => Promise<Device>,
  ) {
    this.another = another;
    this.handle = handle;
    this.kind = kind;
    this.name = name;
    this.info = describeDevice(native().deviceInfo(handle), library);
    this.stream = new Stream(this, native().createStream(handle));
  }

  /**
   * A tensor with a copy of `data`, converted. `dtype` defaults to the array's own (plain numbers and f64: f32); `Uint16Array`
   * holds stored f16 or bf16 and needs one; with a 4-bit dtype a `Uint8Array` holds it as stored, two elements to a byte, and other
   * arrays its whole numbers. `shape` defaults to one dimension.
   * @throws {KernwattError} `SHAPE`, `DTYPE`, `ARGUMENT`, `OUT_OF_MEMORY`, `DISPOSED`.
   */
  tensor(data: NumericData, shape?: Shape | undefined, dtype?: DType | undefined): Tensor {
    checkData('tensor', data);
    const type = dtype ?? ownDType('tensor', data);
    const sizes = shape ?? [elementsIn(data, type)];
    checkLength('tensor', data, sizes, this.#count('tensor', sizes, type), type);
    const tensor = this.allocate('tensor', sizes, type, this.stream);
    try {
      return tensor.write(data);
    } catch (error) {
      tensor.dispose();
      throw error;
    }
  }

  /**
   * As `tensor`, but for arrays so large that copying them takes a while (a GB some tenths of a second): in pieces, with turns
   * of the event loop in between. Leave the array alone until the promise settles.
   * @throws {KernwattError} as `tensor`, and `ARGUMENT` where the array is detached or resized meanwhile; the signal's reason.
   */
  async upload(
    data: Exclude<NumericData, readonly number[]>,
    shape?: Shape | undefined,
    dtype?: DType | undefined,
    options: UploadOptions = {},
  ): Promise<Tensor> {
    checkData('upload', data);
    options.signal?.throwIfAborted();
    const type = dtype ?? ownDType('upload', data);
    const tensor = this.allocate('upload', shape ?? [elementsIn(data, type)], type);
    try {
      await upload('upload', tensor, data, options);
      return tensor;
    } catch (error) {
      tensor.dispose();
      throw error;
    }
  }

  /** A tensor of unspecified contents. */
  empty(shape: Shape, dtype: DType = 'f32'): Tensor {
    return this.allocate('empty', shape, dtype);
  }

  /** A tensor of one value, rounded to `dtype`; NaN and infinities are allowed where the type has them. */
  full(shape: Shape, value: number, dtype: DType = 'f32'): Tensor {
    if (typeof value !== 'number')
      throw new KernwattError('ARGUMENT', `full: value is ${String(value)}, expected a number`);
    if (isInteger(dtype)) checkIntegers('full', { value }, dtype);
    return this.#filled('full', shape, dtype, { distribution: 'constant', parameters: { value } }, this.stream);
  }

  zeros(shape: Shape, dtype: DType = 'f32'): Tensor {
    return this.#filled('zeros', shape, dtype, { distribution: 'zeros' }, this.stream);
  }

  /**
   * A tensor of seeded random numbers, rounded to `dtype`; the distribution and seed stay with it as `tensor.origin`.
   * @throws {KernwattError} `ARGUMENT` for an unknown distribution, parameters that are not finite, or bounds out of order.
   */
  random(shape: Shape, dtype: DType = 'f32', options: RandomOptions = {}): Tensor {
    const { seed = 0, stream = this.stream, distribution = 'normal', ...given } = options;
    const [low, high] = integerRange(dtype);
    const defaults: Record<string, number> | undefined =
      distribution === 'integers' && isPaired(dtype) ? { low, high } : distributions[distribution];
    if (!defaults)
      throw new KernwattError(
        'ARGUMENT',
        `random: distribution is ${distribution}, expected ${Object.keys(distributions).join(', ')}`,
      );
    if (!Number.isSafeInteger(seed) || seed < 0)
      throw new KernwattError('ARGUMENT', `random: seed is ${seed}, expected a whole number from 0 to 2^53 - 1`);
    for (const [name, value] of Object.entries(given)) {
      if (!(name in defaults))
        throw new KernwattError(
          'ARGUMENT',
          `random: ${name} is not an option of ${distribution}, expected ${Object.keys(defaults).join(' or ')}`,
        );
      if (!Number.isFinite(value))
        throw new KernwattError('ARGUMENT', `random: ${name} is ${value}, expected a finite number`);
    }
    const parameters: Record<string, number> = { ...defaults, ...(given as Record<string, number>) };
    const [a, b] = Object.values(parameters) as [number, number];
    if (isInteger(dtype) && distribution !== 'integers')
      throw new KernwattError('ARGUMENT', `random: distribution is ${distribution}, expected integers for ${dtype}`);
    if (distribution === 'integers') checkIntegers('random', parameters, dtype);
    if (distribution !== 'normal' && a > b)
      throw new KernwattError('ARGUMENT', `random: low is ${a}, expected at most high (${b})`);
    return this.#filled('random', shape, dtype, { distribution, seed, parameters }, stream);
  }

  /**
   * Uses the caller's memory without copying; CPU only. The array stays alive with the tensor, and writing to one writes to
   * the other, so leave it alone while queued work uses it. Its buffer is marked as untransferable for good; shared memory
   * (`SharedArrayBuffer`) may be used on several threads at once, resizable buffers are refused.
   */
  fromExternal(
    data: Exclude<NumericData, readonly number[]>,
    shape?: Shape | undefined,
    dtype?: DType | undefined,
  ): Tensor {
    this.check('fromExternal');
    if (this.kind !== 'cpu')
      throw new KernwattError('UNSUPPORTED', `fromExternal: device is ${this.name}, expected cpu`);
    const { own, memory } = storedAs('fromExternal', data, dtype);
    const sizes = shape ?? [elementsIn(data, own)];
    checkLength('fromExternal', data, sizes, this.#count('fromExternal', sizes, own), own);
    const storage = new Storage(this, native().wrap(this.handle, memory), memory.byteLength, memory);
    keepInPlace(memory.buffer);
    storage.origin = { distribution: 'external' };
    return new Tensor(storage, 0, own, [...sizes], rowMajor(sizes));
  }

  /**
   * Uses memory at an address of this device, row-major: of another library on the same GPU, or of the host on the CPU. Nothing
   * can tell whether the address is right; a wrong one ends the process or the device. `owner` is kept from the garbage collector until the tensor
   * and the work queued on it are gone; freeing the memory before is the caller's error.
   * @throws {KernwattError} `ARGUMENT` for an address that is 0, negative, beyond 64 bits or not aligned to the element, and without an
   *   owner; `SHAPE`, `DTYPE`, `DISPOSED`.
   */
  fromPointer(pointer: bigint, shape: Shape, dtype: DType, owner: object): Tensor {
    const size = this.#count('fromPointer', shape, dtype);
    if ((typeof owner !== 'object' && typeof owner !== 'function') || owner === null)
      throw new KernwattError('ARGUMENT', `fromPointer: owner is ${String(owner)}, expected an object`);
    const bytes = bytesOf(size, dtype);
    const step = BigInt(Math.max(1, bitsOf(dtype) / 8));
    if (typeof pointer !== 'bigint' || pointer <= 0n || pointer + BigInt(bytes) >= 2n ** 64n || pointer % step !== 0n)
      throw new KernwattError(
        'ARGUMENT',
        `fromPointer: pointer is ${String(pointer)}, expected a bigint above 0, aligned to ${step} bytes, with ${bytes} bytes after it`,
      );
    const handle = native().wrapPointer(this.handle, pointer, bytes, owner);
    const storage = new Storage(this, handle, bytes, { base: this, byteOffset: Number(pointer) });
    storage.origin = { distribution: 'external' };
    return new Tensor(storage, 0, dtype, [...shape], rowMajor(shape));
  }

  /** A tensor over the memory of one that another thread of this process has shared; read-only, and not counted in `memory()`. */
  adopt(token: SharedTensor): Tensor {
    return adoptTensor(this, token);
  }

  /**
   * Host memory for fast transfers: page-locked for a library's device, aligned on the CPU. Made on a thread of our own.
   * @throws {KernwattError} `ARGUMENT`, `OUT_OF_MEMORY`, `DISPOSED`; `UNSUPPORTED` in runtimes that forbid external ArrayBuffers.
   */
  hostBuffer(bytes: number): Promise<HostBuffer> {
    return makeHostBuffer(this, bytes);
  }

  /** Live counters. */
  memory(): MemoryUse {
    this.check('memory');
    const m = native().memory(this.handle);
    const averageBytes = m.seconds > 0 ? m.byteSeconds / m.seconds : m.currentBytes;
    return { ...m, limitBytes: m.limitBytes ?? null, averageBytes };
  }

  /**
   * Gives memory that is kept for reuse back to the system or the GPU, on a thread of our own. It happens by itself where memory or
   * `memoryLimit` runs out. Resolves to the bytes.
   */
  async trim(): Promise<number> {
    this.check('trim');
    return native().trim(this.handle);
  }

  createStream(): Stream {
    this.check('createStream');
    return new Stream(this, native().createStream(this.handle));
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Lets queued work finish, then releases the device; its tensors, plans and streams are disposed with it. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= native().closeDevice(this.handle);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  toString(): string {
    return `Device(${this.name}, ${this.info.name})`;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }

  /** @internal Throws `DISPOSED` when closed. */
  check(where: string): void {
    if (this.#closing)
      throw new KernwattError('DISPOSED', `${where}: device ${this.name} is closed, expected an open one`);
  }

  /**
   * @internal A row-major tensor of unspecified contents, for `where`. stream: the one that writes it first; its memory may come from a
   * tensor disposed of before, whose last work is still queued there.
   */
  allocate(where: string, shape: Shape, dtype: DType, stream?: Stream): Tensor {
    const size = this.#count(where, shape, dtype);
    const bytes = bytesOf(size, dtype);
    const storage = new Storage(this, native().alloc(this.handle, bytes, stream?.handle), bytes);
    return new Tensor(storage, 0, dtype, [...shape], rowMajor(shape));
  }

  /** @internal As allocate, for a tensor that is packed. */
  allocatePacked(where: string, shape: Shape, dtype: DType, packed: Packed, stream?: Stream): Tensor {
    this.#count(where, shape, dtype);
    const storage = new Storage(this, native().alloc(this.handle, packed.bytes, stream?.handle), packed.bytes);
    return new Tensor(storage, 0, dtype, [...shape], rowMajor(shape), packed);
  }

  /** @internal Queues a fill of any view. */
  fill(tensor: Tensor, origin: Origin, stream: Stream = this.stream): void {
    const { distribution, seed = 0, parameters = {} } = origin;
    const [a = 0, b = 0] = Object.values(parameters);
    native().fill(stream.handle, tensor.nativeView, distribution === 'zeros' ? 'constant' : distribution, seed, a, b);
    tensor.storage.wrote(stream, origin);
  }

  #filled(where: string, shape: Shape, dtype: DType, origin: Origin, stream: Stream): Tensor {
    if (stream.device !== this)
      throw new KernwattError('ARGUMENT', `${where}: stream is on ${stream.device.name}, expected ${this.name}`);
    stream.check(where);
    const tensor = this.allocate(where, shape, dtype, stream);
    try {
      this.fill(tensor, origin, stream);
    } catch (error) {
      tensor.dispose();
      throw error;
    }
    return tensor;
  }

  #count(where: string, shape: Shape, dtype: DType): number {
    this.check(where);
    checkDType(where, dtype);
    return countElements(where, shape, dtype);
  }
}

/** The major release from which Node and V8 refuse every way of detaching a marked buffer. */
const firstThatHolds = 24;

/** Keeps a buffer from being transferred away under queued work, as far as this Node can; the addon looks again at each use. */
function keepInPlace(buffer: ArrayBufferLike): void {
  if (!(buffer instanceof ArrayBuffer) || isHostBuffer(buffer)) return;
  process.getBuiltinModule('node:worker_threads').markAsUntransferable(buffer);
  if (Number.parseInt(process.versions.node, 10) >= firstThatHolds) return;
  for (const name of ['transfer', 'transferToFixedLength'])
    if (name in buffer)
      Object.defineProperty(buffer, name, {
        value: () => {
          throw new TypeError('the ArrayBuffer is used by a tensor and cannot be transferred');
        },
      });
}

function checkIntegers(where: string, values: Readonly<Record<string, number>>, dtype: DType): void {
  const [low, high] = integerRange(dtype);
  for (const [name, value] of Object.entries(values))
    if (!Number.isInteger(value) || value < low || value > high)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} is ${value}, expected a whole number from ${low} to ${high} for ${dtype}`,
      );
}
