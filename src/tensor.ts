// A strided view of memory on one device. Views share the buffer, which is freed when the last of them is disposed.
import type { Device } from './device.js';
import {
  bitsOf,
  bytesOf,
  checkData,
  type DType,
  dtypeIndex,
  encode,
  isPaired,
  type NumericData,
  type RawData,
  type TensorData,
} from './dtype.js';
import { KernwattError } from './errors.js';
import { arrayOf, checkInto } from './host.js';
import { type NativeView, native } from './native.js';
import { type Packed, unpack } from './packed.js';
import {
  checkLength,
  distinctElements,
  formatShape,
  isInjective,
  isRowMajor,
  overlaps,
  type Region,
  type Shape,
  type SliceRange,
  sliceLayout,
} from './shape.js';
import { type SharedTensor, shareTensor } from './share.js';
import type { Storage } from './storage.js';
import type { Stream } from './stream.js';
import { moveTo } from './upload.js';
import { checkPairs, expandLayout, permuteLayout, viewLayout } from './views.js';

/** What a tensor was filled with, so that measurements can state their inputs. */
export interface Origin {
  distribution: 'zeros' | 'constant' | 'normal' | 'uniform' | 'integers' | 'data' | 'external';
  seed?: number;
  /** normal: mean and standard deviation; uniform and integers: bounds; constant: the value. */
  parameters?: Readonly<Record<string, number>>;
}

interface ReadOptions {
  stream?: Stream | undefined;
}

/** Whole numbers that are kept beside the memory they were written to, so that lengths and offsets can be checked. */
const mostKnown = 2 ** 16;

export class Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Distance between neighbours along each dimension, in elements; 0 repeats one element. */
  readonly stride: Shape;
  /** Elements. */
  readonly size: number;
  /** Elements times the size of one, as a copy without gaps takes; of a prepacked tensor, with the padding of its format. */
  readonly bytes: number;
  readonly device: Device;
  /** @internal */
  readonly storage: Storage;
  /** @internal */
  readonly nativeView: NativeView;
  #disposed = false;

  /** @internal */
  readonly packed: Packed | undefined;

  /** @internal Takes over one hold of the storage. */
  constructor(storage: Storage, offset: number, dtype: DType, shape: Shape, stride: Shape, packed?: Packed) {
    let size = 1;
    for (const n of shape) size *= n;
    this.dtype = dtype;
    this.shape = Object.freeze(shape);
    this.stride = Object.freeze(stride);
    this.size = size;
    this.bytes = packed?.bytes ?? bytesOf(size, dtype);
    this.packed = packed;
    this.device = storage.device;
    this.storage = storage;
    this.nativeView = { buffer: storage.handle, offset, dtype: dtypeIndex(dtype), shape, stride, format: packed?.tag };
  }

  /** What the memory was last filled with; undefined once an operator has written to it. Views share it. */
  get origin(): Origin | undefined {
    return this.storage.origin;
  }

  /**
   * How the data lie: `plain`, as the strides say, or a format of kernels that `op.prepack()` made, in words. A packed tensor is an
   * operand, and can be shared, unpacked and disposed; it cannot be read, written or viewed.
   */
  get format(): string {
    return this.packed?.text ?? 'plain';
  }

  /**
   * A plain copy of a packed tensor, bit for bit what was packed.
   * @throws {KernwattError} `ARGUMENT` when it is plain; `DISPOSED`, `OUT_OF_MEMORY`.
   */
  unpack(options: { stream?: Stream | undefined } = {}): Tensor {
    return unpack(this, this.#stream('unpack', options.stream));
  }

  /** Row-major without gaps. */
  get isContiguous(): boolean {
    return isRowMajor(this.shape, this.stride);
  }

  get disposed(): boolean {
    return this.#disposed || this.device.closed;
  }

  /** Gives this view up. The memory goes back once no view, plan or queued work needs it. Idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * The elements in row-major order, once the work queued before on the tensor's stream has run.
   * f16, bf16 and f8 come back as a `Float32Array`, 4-bit elements as an `Int8Array` (of `nf4`, the codes); `raw` gives the stored
   * bits instead (`Uint16Array`, `Uint8Array`; two 4-bit elements to a byte).
   * @param options.stream the stream to wait for; default: the one that was last given this tensor to write.
   * @param options.into an array over a host buffer to fill and return, of the type that would be returned otherwise.
   * @throws {KernwattError} `DISPOSED`; `OUT_OF_MEMORY` when the array would be too large; the error of the work it waited for.
   */
  async read(options?: ReadOptions & { raw?: false | undefined; into?: TensorData | undefined }): Promise<TensorData>;
  async read(options: ReadOptions & { raw: true; into?: RawData | undefined }): Promise<RawData>;
  async read(
    options: ReadOptions & { raw?: boolean | undefined; into?: TensorData | RawData | undefined } = {},
  ): Promise<TensorData | RawData> {
    const stream = this.#stream('read', options.stream);
    this.checkPlain('read', 'tensor');
    const raw = options.raw ?? false;
    const into = options.into ?? arrayOf(this, raw);
    if (into === options.into) checkInto(this, into, raw);
    await native().read(stream.handle, this.nativeView, into, raw);
    return into;
  }

  /**
   * Queues new contents, given in row-major order; `data` is copied before the call returns. A `Uint16Array` holds stored
   * f16 or bf16, a `Uint8Array` for a 4-bit tensor two elements to a byte; everything else is converted with one rounding to nearest
   * even (f64 and plain numbers through f32), to whole numbers where it is one of their range and not at all otherwise. An array over
   * a `device.hostBuffer()` is not copied before: leave its contents alone until a later `stream.mark()` has resolved.
   * @throws {KernwattError} `SHAPE` for the wrong number of elements; `DTYPE`, `ARGUMENT` for data that do not fit; `DISPOSED`.
   */
  write(data: NumericData, options: { stream?: Stream | undefined } = {}): this {
    const stream = this.#stream('write', options.stream);
    this.checkPlain('write', 'tensor');
    checkData('write', data);
    checkLength('write', data, this.shape, this.size, this.dtype);
    this.#writable('write');
    const { data: encoded, raw } = encode('write', data, this.dtype);
    native().write(stream.handle, this.nativeView, encoded, raw);
    const whole = this.isContiguous && this.bytes === this.storage.bytes && this.size <= mostKnown;
    const numbers = whole && encoded instanceof Int32Array ? encoded.slice() : undefined;
    this.storage.wrote(stream, { distribution: 'data' }, numbers);
    return this;
  }

  /**
   * Queues a copy of `source` into this tensor, converting the dtype with one rounding to nearest even. Any strides. Packed tensors and
   * those of 4-bit elements are copied as they are.
   * @throws {KernwattError} `SHAPE` unless the shapes are equal; `DTYPE` where they must be of one dtype; `ARGUMENT` across devices (use `to`); `DISPOSED`.
   */
  copyFrom(source: Tensor, options: { stream?: Stream | undefined } = {}): this {
    const stream = this.#stream('copyFrom', options.stream);
    source.check('copyFrom', 'source');
    if (source.device !== this.device)
      throw new KernwattError(
        'ARGUMENT',
        `copyFrom: source is on ${source.device.name}, expected ${this.device.name}; use to()`,
      );
    if (formatShape(source.shape) !== formatShape(this.shape))
      throw new KernwattError(
        'SHAPE',
        `copyFrom: source is ${formatShape(source.shape)}, expected ${formatShape(this.shape)}`,
      );
    this.#writable('copyFrom');
    const packed = source.packed || this.packed;
    if (source.dtype !== this.dtype && (packed || isPaired(source.dtype) || isPaired(this.dtype)))
      throw new KernwattError(
        'DTYPE',
        `copyFrom: source is ${source.dtype}, expected ${this.dtype} as one of the two is ${packed ? 'packed' : 'of 4-bit elements'}`,
      );
    if (overlaps(source.region, this.region))
      throw new KernwattError('ARGUMENT', 'copyFrom: source overlaps the tensor in memory, expected separate memory');
    source.ordered('copyFrom', 'source', stream);
    native().copy(stream.handle, source.nativeView, this.nativeView);
    this.storage.wrote(stream, source.origin);
    return this;
  }

  /**
   * The same elements under another shape, sharing memory; one size may be -1.
   * A view of 4-bit elements, whichever way it is made, lies without gaps and begins and ends on a byte: all else is `UNSUPPORTED`.
   * @throws {KernwattError} `SHAPE` when the number of elements differs; `ARGUMENT` unless contiguous; `DISPOSED`.
   */
  view(shape: Shape): Tensor {
    this.checkPlain('view', 'tensor');
    const layout = viewLayout(this, shape);
    return this.#share('view', this.nativeView.offset, layout.shape, layout.stride);
  }

  /**
   * Part of the tensor, sharing memory: one range for each dimension, trailing ones may be left out.
   * @example x.slice([[0, 8], null])   // the first eight rows
   * @throws {KernwattError} `SHAPE` when a range leaves the tensor; `DISPOSED`.
   */
  slice(ranges: readonly SliceRange[]): Tensor {
    this.checkPlain('slice', 'tensor');
    const { offset, shape, stride } = sliceLayout('slice', this, ranges);
    return this.#share('slice', this.nativeView.offset + (shape.includes(0) ? 0 : offset), shape, stride);
  }

  /**
   * The dimensions in another order, sharing memory.
   * @example x.permute([1, 0])   // the transpose
   */
  permute(order: readonly number[]): Tensor {
    this.checkPlain('permute', 'tensor');
    const { shape, stride } = permuteLayout(this, order);
    return this.#share('permute', this.nativeView.offset, shape, stride);
  }

  /**
   * Repeats dimensions of size 1, and adds leading ones, without copying (stride 0). Such a view can be read, not written.
   * @example w.expand([4, 64, 64])   // one weight for a batch of four
   */
  expand(shape: Shape): Tensor {
    this.checkPlain('expand', 'tensor');
    const layout = expandLayout(this, shape);
    return this.#share('expand', this.nativeView.offset, layout.shape, layout.stride);
  }

  /** A row-major tensor of the same elements: another view when this one is row-major already, else a queued copy. */
  contiguous(options: { stream?: Stream | undefined } = {}): Tensor {
    const stream = this.#stream('contiguous', options.stream);
    this.checkPlain('contiguous', 'tensor');
    if (this.isContiguous) return this.#share('contiguous', this.nativeView.offset, [...this.shape], [...this.stride]);
    this.ordered('contiguous', 'tensor', stream);
    const copy = this.device.allocate('contiguous', this.shape, this.dtype, stream);
    native().copy(stream.handle, this.nativeView, copy.nativeView);
    copy.storage.wrote(stream, this.origin);
    return copy;
  }

  /** A row-major copy on `device`, through host memory in pieces of 256 MiB. Resolves when it has been queued there. */
  async to(device: Device): Promise<Tensor> {
    this.checkPlain('to', 'tensor');
    return moveTo(this, device);
  }

  /** 64-bit FNV-1a over the elements' bytes in row-major order, hexadecimal. */
  async hash(options: { stream?: Stream | undefined } = {}): Promise<string> {
    const stream = this.#stream('hash', options.stream);
    this.checkPlain('hash', 'tensor');
    return native().hash(stream.handle, this.nativeView);
  }

  /**
   * A token that other threads of this process give to `device.adopt()` for a tensor over the same memory, without a copy: weights for
   * many workers. From here on nobody may write to it. The token itself holds nothing: it is good as long as this tensor, or one
   * adopted from it, lives, so keep one until every worker has adopted. The memory goes back with the last of them, also when a worker is
   * terminated.
   * @throws {KernwattError} `ARGUMENT` unless contiguous, and for memory of the caller; `DISPOSED`; the error of the work that fills it.
   */
  share(): Promise<SharedTensor> {
    return shareTensor(this);
  }

  toString(): string {
    return `Tensor(${this.dtype} ${formatShape(this.shape)} on ${this.device.name}${this.disposed ? ', disposed' : ''})`;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }

  /** @internal Where this view lies, for overlap checks. */
  get region(): Region {
    const itemBytes = bitsOf(this.dtype) / 8;
    const start = this.storage.baseOffset + this.nativeView.offset * itemBytes;
    if (this.packed)
      return { base: this.storage.base, start, itemBytes, shape: [this.packed.bytes / itemBytes], stride: [1] };
    return { base: this.storage.base, start, itemBytes, shape: this.shape, stride: this.stride };
  }

  /** @internal The elements of a contiguous view, where the host knows them without waiting: whole numbers that it wrote. */
  known(): Int32Array | undefined {
    const { offset } = this.nativeView;
    return this.dtype === 'i32' && this.isContiguous
      ? this.storage.numbers?.subarray(offset, offset + this.size)
      : undefined;
  }

  /** @internal Bytes of distinct elements: a repeated dimension (stride 0) counts once. */
  get distinctBytes(): number {
    return bytesOf(distinctElements(this.shape, this.stride), this.dtype);
  }

  /** @internal Throws `DISPOSED` unless usable. */
  check(where: string, name: string): void {
    if (this.device.closed)
      throw new KernwattError(
        'DISPOSED',
        `${where}: ${name} is on ${this.device.name}, which is closed; expected an open device`,
      );
    if (this.#disposed) throw new KernwattError('DISPOSED', `${where}: ${name} is disposed, expected a live tensor`);
  }

  /** @internal The same tensor again, to be disposed by itself. */
  alias(): Tensor {
    this.check('alias', 'tensor');
    const { storage, nativeView, dtype, shape, stride, packed } = this;
    return new Tensor(storage.retain(), nativeView.offset, dtype, [...shape], [...stride], packed);
  }

  /** @internal As check, and throws `UNSUPPORTED` where the data are packed for a kernel. */
  checkPlain(where: string, name: string): void {
    this.check(where, name);
    if (this.packed)
      throw new KernwattError(
        'UNSUPPORTED',
        `${where}: ${name} is packed in ${this.packed.text}, expected a plain tensor; use unpack()`,
      );
  }

  /** @internal Throws where other threads read this memory. */
  checkOwn(where: string, name: string): void {
    if (this.storage.readOnly)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} is shared with other threads, expected memory of its own to write to`,
      );
  }

  /** @internal Throws unless work on `stream` is ordered after the writing of this tensor. */
  ordered(where: string, name: string, stream: Stream): void {
    if (this.storage.pendingOutside(stream))
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} was written on another stream that has not been waited for, expected \`await otherStream.mark()\` first`,
      );
  }

  #stream(where: string, given: Stream | undefined): Stream {
    this.check(where, 'tensor');
    const stream = given ?? this.storage.writer ?? this.device.stream;
    const live = given === undefined && stream.closed ? this.device.stream : stream;
    live.check(where);
    if (live.device !== this.device)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: stream is on ${live.device.name}, expected ${this.device.name} as the tensor`,
      );
    return live;
  }

  /** Throws where others read this memory, or unless every element of this view is one of its own in memory. */
  #writable(where: string): void {
    this.checkOwn(where, 'tensor');
    if (!isInjective(this.shape, this.stride))
      throw new KernwattError(
        'ARGUMENT',
        `${where}: tensor repeats elements (strides ${formatShape(this.stride)}), expected a view without stride 0`,
      );
  }

  #share(where: string, offset: number, shape: Shape, stride: Shape): Tensor {
    if (isPaired(this.dtype)) checkPairs(where, this, offset - this.nativeView.offset, shape, stride);
    return new Tensor(this.storage.retain(), offset, this.dtype, shape, stride);
  }
}
