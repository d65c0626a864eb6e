// The raw shape of the addon (native/*.cc), and the only file that loads it. Everything here is unchecked: op.ts, tensor.ts,
// stream.ts and measure.ts check first. Names are snake_case in C++ and camelCase here; opArgs() in this file converts.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KernwattError } from './errors.js';
import type { CpuInfo } from './info.js';
import type { SamplerCost, SourceReadings, SourceSpec, SourceStatus } from './native.sources.js';
import type { FormatQuery, Packed } from './packed.js';
import { addonFix, platformName, prebuilds, verified } from './prebuilt.js';
import type { Shape } from './shape.js';

// Not imported: an import makes Node evaluate all that a builtin module exports, 2 ms for this one.
const { existsSync } = process.getBuiltinModule('node:fs');

declare const tag: unique symbol;
/** Opaque native objects; the garbage collector releases what nobody disposed. */
export type DeviceHandle = { readonly [tag]: 'device' };
export type StreamHandle = { readonly [tag]: 'stream' };
export type BufferHandle = { readonly [tag]: 'buffer' };
export type PlanHandle = { readonly [tag]: 'plan' };
export type SourceHandle = { readonly [tag]: 'source' };
export type NvmlHandle = { readonly [tag]: 'nvml' };
export type NvmlDeviceHandle = { readonly [tag]: 'nvml device' };
export type GpmSampleHandle = { readonly [tag]: 'gpm sample' };

/** A strided view of a buffer; offset and stride in elements, dtype as an index into `dtypes`. */
export interface NativeView {
  buffer: BufferHandle;
  offset: number;
  dtype: number;
  shape: readonly number[];
  stride: readonly number[];
  /** Packed for a kernel (kernels/core/packed.h): strides and offset then say nothing. Undefined: plain. */
  format?: number | undefined;
}

export type FieldKind = 'in' | 'in?' | 'inout' | 'out' | 'f32' | 'i64' | 'bool' | 'choice';

export interface NativeOp {
  /** KW_FIELDS of the operator's Args struct, in order, C++ spelling. */
  fields: { name: string; kind: FieldKind; choices?: string[] }[];
  /** Backends inside the addon; libraries add theirs (LibraryInfo.ops). */
  backends: ('ref' | 'cpu')[];
}

export interface NativeDeviceInfo {
  name: string;
  uuid: string;
  pci: string;
  ccMajor: number;
  ccMinor: number;
  smCount: number;
  emulated: boolean;
  totalBytes: number;
  smemBytes: number;
  llcBytes: number;
  driverVersion: number;
  runtimeVersion: number;
  clockKhz: number;
  memoryClockKhz: number;
  memoryBusBits: number;
  /** CPU only: instruction set in use and its worker threads. */
  isa?: string;
  threads?: number;
}

export interface LibraryInfo {
  abi: number;
  build: string;
  ops: string[];
  deviceCount: number;
  /** Why deviceCount is 0, in the library's words. */
  reason: string;
}

export interface MemoryCounters {
  currentBytes: number;
  peakBytes: number;
  /** Integral of currentBytes over time since open, byte-seconds, exact. */
  byteSeconds: number;
  /** Seconds since open, same clock. */
  seconds: number;
  allocations: number;
  /** Held from the system or the GPU, in use or kept for reuse; now and at most. */
  reservedBytes: number;
  reservedPeakBytes: number;
  /** What openDevice was given as memoryLimit. */
  limitBytes?: number;
  freeBytes: number;
  totalBytes: number;
}

/** One output of an operator against its reference on the sampled rows (kernels/core/reference.h). */
export interface CheckResult {
  field: string;
  /** Elements compared and elements outside the tolerance. */
  elements: number;
  failed: number;
  /** Largest |y - value| / tolerance; at most 1 passes. */
  worst: number;
  /** Where the worst element is and what was found there. */
  row: number;
  column: number;
  actual: number;
  expected: number;
  allowed: number;
  maxAbs: number;
  maxRel: number;
  cosine: number;
}

export interface SampleOptions {
  /** cases[i] = plans that case i rotates over; several make its operands cold. All on one stream. */
  cases: readonly (readonly PlanHandle[])[];
  /** Which case each sample times, in order. */
  order: Uint32Array;
  /** Calls per sample, by case. */
  calls: Uint32Array;
  /** device: the work alone (events, or the worker's clock on the CPU); stream: submission to completion. */
  clock: 'device' | 'stream';
}

export interface SampleResult {
  /** Seconds per call, one entry per entry of order. */
  seconds: Float64Array;
  /** Start of each sample, seconds on the monotonic clock. */
  start: Float64Array;
  /** When the last one was over, likewise. */
  end: number;
  /** Jiffies stolen by the hypervisor during the run over jiffies elapsed; -1 when unknown. */
  stealShare: number;
}

/** That NVML, or a function of it, has no answer. `status` is its nvmlReturn_t, -1 where it has no such function. */
export interface NvmlFailure {
  state: 'unsupported' | 'denied' | 'missing' | 'unavailable' | 'lost';
  status: number;
  /** The one that answered; empty where the library does not load. */
  function: string;
  message: string;
}
export type NvmlOpened = { state: 'ok'; library: NvmlHandle; path: string } | NvmlFailure;
export type NvmlAnswered = { state: 'ok'; function: string; value: unknown } | NvmlFailure;

export interface Native {
  /** KW_ABI the addon was built with. */
  abi: number;
  /** N-API version it was built for. */
  napi: number;
  dtypes: string[];
  /** Error code names in wire order. */
  codes: string[];
  ops: Record<string, NativeOp>;
  cpu(): CpuInfo;
  /** dlopen once per path; throws LIBRARY with the reason. */
  loadLibrary(path: string): LibraryInfo;
  /** Loads a library and wakes its driver on a native thread, which may take a second; loadLibrary then says how that went. */
  prepareLibrary(path: string): Promise<void>;
  /** Opens on a native thread; the CPU resolves at once. */
  openDevice(options: {
    kind: 'cpu' | 'library';
    library?: string;
    index?: number;
    threads?: number;
    /** Strongest instruction set allowed on the CPU; default: the best there is. */
    isa?: string;
    /** CPU numbers that the threads are tied to, in turn. */
    affinity?: readonly number[];
    /** Bytes that the device may hold at most. */
    memoryLimit?: number;
  }): Promise<DeviceHandle>;
  deviceInfo(device: DeviceHandle): NativeDeviceInfo;
  memory(device: DeviceHandle): MemoryCounters;
  /** Gives unused memory back, on a thread; resolves to its bytes. */
  trim(device: DeviceHandle): Promise<number>;
  /** Drains every stream of the device, then releases it. Later calls on it throw DISPOSED. */
  closeDevice(device: DeviceHandle): Promise<void>;
  createStream(device: DeviceHandle): StreamHandle;
  destroyStream(stream: StreamHandle): Promise<void>;
  /**
   * Resolves when everything queued before has run. A stream keeps the first failure of its work for its next promise (mark, read,
   * hash, check, sample) or syncNow, which rejects with it; work queued later goes on unless the device is lost.
   */
  mark(stream: StreamHandle): Promise<void>;
  syncNow(stream: StreamHandle): void;
  /**
   * 64-byte aligned or better; throws OUT_OF_MEMORY before touching memory that is not there. With a stream, memory may come back whose
   * last work is still queued there: until that is done, other streams are refused with ARGUMENT.
   */
  alloc(device: DeviceHandle, bytes: number, stream?: StreamHandle): BufferHandle;
  /** Idempotent; memory goes back once queued work no longer needs it. */
  free(buffer: BufferHandle): void;
  /** Page-locked where the device's library offers that; made on a thread. Write and read use arrays over it in place. */
  hostBuffer(device: DeviceHandle, bytes: number): Promise<ArrayBuffer>;
  /** Detaches an ArrayBuffer. Aborts Node 24 and later where it is marked as untransferable. */
  detach(buffer: ArrayBuffer): void;
  /** Wraps caller-owned memory of the CPU device without copying; the typed array is kept alive until the buffer is gone. */
  wrap(device: DeviceHandle, memory: ArrayBufferView): BufferHandle;
  /** Wraps memory at an address of the device; owner is kept alive until the buffer is gone. */
  wrapPointer(device: DeviceHandle, pointer: bigint, bytes: number, owner: object): BufferHandle;
  /** The memory of a buffer of the CPU as an ArrayBuffer, which keeps it until it is detached; null where the runtime forbids that. */
  expose(buffer: BufferHandle): ArrayBuffer | null;
  /** Detaches what `expose` gave. */
  conceal(buffer: BufferHandle, exposed: ArrayBuffer): void;
  /** An id by which any environment of this process can use the buffer's memory while a buffer over it lives. */
  share(buffer: BufferHandle): string;
  /** Throws DISPOSED when no buffer over it lives, ARGUMENT for memory of another device. */
  adopt(device: DeviceHandle, id: string): { buffer: BufferHandle; bytes: number };
  /** Queues a copy of `data` (copied now) into the view, converting from the array's element type (or raw 16/8-bit storage). */
  write(stream: StreamHandle, view: NativeView, data: ArrayBufferView, raw: boolean): void;
  /** Fills `into` with the view's elements in row-major order, converted, or raw storage; resolves when done. Do not transfer or detach it before. */
  read(stream: StreamHandle, view: NativeView, into: ArrayBufferView, raw: boolean): Promise<void>;
  /** Converts the first `count` elements of an array at once, on this thread; element types as indices into `dtypes`. */
  convert(from: ArrayBufferView, fromDtype: number, into: ArrayBufferView, intoDtype: number, count: number): void;
  /** Queues dst = src, same device, any strides, dtypes converted with one rounding to nearest even; on the CPU also packs and unpacks. */
  copy(stream: StreamHandle, src: NativeView, dst: NativeView): void;
  /** Queues a seeded fill, identical on every device: element i depends on (seed, i) alone, i in row-major order; kernels/core/host/distribution.h says how. */
  fill(stream: StreamHandle, view: NativeView, distribution: string, seed: number, a: number, b: number): void;
  /** Queues rows of a weight to four bits (kernels/core/host/quantize.h); CPU only. */
  quantize(
    stream: StreamHandle,
    w: NativeView,
    codes: NativeView,
    scales: NativeView,
    zeros: NativeView | undefined,
    clipped: boolean,
    begin: number,
    end: number,
  ): void;
  /** The same, back: writes `w`; `clipped` says nothing. */
  dequantize: Native['quantize'];
  /** 64-bit FNV-1a over the view's bytes in row-major order, hexadecimal. */
  hash(stream: StreamHandle, view: NativeView): Promise<string>;
  /** The format that a backend wants an operand in; null: plain. */
  packedFormat(...query: FormatQuery): Packed | null;
  /** Bytes of a packed tensor, and its format in words; throws UNSUPPORTED for a tag of another version. */
  packedExtent(dtype: number, shape: Shape, tag: number): Packed;
  /**
   * Creates, sizes workspace from the stream's arena, binds. args: C++ field name -> NativeView | number | boolean | choice index |
   * undefined. configuration: one of `configurations`; throws UNSUPPORTED where it does not take the arguments.
   */
  createPlan(
    op: string,
    backend: 'ref' | 'cpu' | 'library',
    stream: StreamHandle,
    args: Record<string, unknown>,
    configuration?: string,
  ): PlanHandle;
  /** As createPlan without creating: the reason the backend declines, or ''. */
  declines(op: string, backend: 'ref' | 'cpu' | 'library', device: DeviceHandle, args: Record<string, unknown>): string;
  rebindPlan(plan: PlanHandle, args: Record<string, unknown>): void;
  /**
   * A function of no arguments that queues the plan once; the fastest call there is. Throws BUSY when 4096 calls (512 on a
   * library) wait already, DISPOSED when the plan or a tensor of it is gone, DEVICE_LOST.
   */
  enqueueFunction(plan: PlanHandle): () => void;
  /** The same once, for a plan that is queued no second time: cheaper than making a function for it. */
  enqueue(plan: PlanHandle): void;
  /** The same several times in one call: what queuing costs without crossing from JavaScript each time. */
  enqueueOften(plan: PlanHandle, times: number): void;
  /** JSON object: variant, tile, reason ... */
  explain(plan: PlanHandle): string;
  /** The ways in which what the plan was created with can be computed, the backend's own choice first; empty: it names none. */
  configurations(plan: PlanHandle): string[];
  workspaceBytes(plan: PlanHandle): number;
  /** Idempotent; after queued calls of it have run. */
  destroyPlan(plan: PlanHandle): void;
  /**
   * Compares outputs in args (CPU device) with the reference: the given flat rows of the first, and what belongs to them in others; null: all.
   * `before`: the arguments as they were before the call, where it updated tensors in place.
   */
  check(
    op: string,
    stream: StreamHandle,
    args: Record<string, unknown>,
    rows: Float64Array | null,
    before?: Record<string, unknown>,
  ): Promise<CheckResult[]>;
  /** Runs the schedule on a native thread; refuses emulated devices with UNSUPPORTED. */
  sample(stream: StreamHandle, options: SampleOptions): Promise<SampleResult>;
  /** Loads and initialises NVML, once per path and process; an empty path is the driver's. A promise, settled from a native thread, unless `blocking`. */
  nvmlOpen(path: string, blocking: boolean): NvmlOpened | Promise<NvmlOpened>;
  /** A query of native/meter/nvml_query.h; device null: of the driver as a whole. */
  nvmlAsk(
    library: NvmlHandle,
    device: NvmlDeviceHandle | null,
    query: string,
    args: readonly (number | string | GpmSampleHandle)[],
    blocking: boolean,
  ): NvmlAnswered | Promise<NvmlAnswered>;
  /** Live objects, for leak tests: they return to their baseline. */
  counters(): Record<'devices' | 'streams' | 'buffers' | 'bytes' | 'plans' | 'pending' | 'hostBuffers', number>;
  /**
   * Reads a counter on the one thread of all meters until the handle is closed or collected; the same counter at the same interval is
   * read once for all. `manual`: it is read by pollSource alone. Never fails because of the counter: sourceStatus tells.
   */
  openSource(spec: SourceSpec & { intervalSeconds: number }, manual: boolean): SourceHandle;
  /** Idempotent. */
  closeSource(source: SourceHandle): void;
  /** Reads what is due at `now`, seconds of the caller's clock; returns when it is due again. */
  pollSource(source: SourceHandle, now: number): number;
  sourceStatus(source: SourceHandle): SourceStatus;
  /** Readings from `from` to `to`, seconds of CLOCK_MONOTONIC, and some on each side. */
  readSource(source: SourceHandle, from: number, to: number): SourceReadings;
  samplerCost(): SamplerCost;
  /** Cost of crossing into C++ and back: does nothing. */
  nothing(): void;
}

/** `transX` -> `trans_x`: argument names as the C++ structs spell them. */
export const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);

let addon: Native | undefined;
let file = '';

/** The addon, loaded on first use, so that importing this package works on every platform. Throws `LIBRARY` where it cannot load. */
export function native(): Native {
  addon ??= load();
  return addon;
}

/** The file that the addon was loaded from. */
export function addonFile(): string {
  native();
  return file;
}

/**
 * An own build first, then what the package brings, once it agrees with its manifest; KERNWATT_ADDON names another file (the
 * sanitizer's build, for one).
 */
function load(): Native {
  const given = process.env.KERNWATT_ADDON;
  const prebuilt = join(prebuilds(), 'kernwatt.node');
  const own = fileURLToPath(new URL('../build/Release/kernwatt.node', import.meta.url));
  const candidates = given ? [resolve(given)] : [own, prebuilt];
  const require = createRequire(import.meta.url);
  const tried: string[] = [];
  for (const candidate of candidates) {
    try {
      if (!existsSync(candidate)) throw new Error('not there');
      const manifest = candidate === prebuilt ? verified(candidate) : null;
      const loaded = require(candidate) as Native & { setErrorClass(errorClass: typeof KernwattError): void };
      if (manifest && loaded.abi !== manifest.abi) throw new Error(`has ABI ${loaded.abi}, expected ${manifest.abi}`);
      loaded.setErrorClass(KernwattError);
      file = candidate;
      return loaded;
    } catch (cause) {
      tried.push(`\n  ${candidate}: ${(cause as Error).message.split('\n')[0]}`);
    }
  }
  throw new KernwattError(
    'LIBRARY',
    `kernwatt: the native addon is ${tried.length === 1 ? 'a file that does not load' : 'in none of these files'} ` +
      `on ${platformName()}, expected one that loads; ${addonFix()}${tried.join('')}`,
  );
}
