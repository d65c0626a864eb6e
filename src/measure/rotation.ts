// Cold operands: copies of everything a plan touches, visited in turn, so that by the time one comes round again the
// last-level cache has held others. Layouts and sharing between tensors are kept.
import { bitsOf, bytesOf } from '../dtype.js';
import type { Operator } from '../op.js';
import type { Plan } from '../plan.js';
import { extent } from '../shape.js';
import type { Storage } from '../storage.js';
import { Tensor } from '../tensor.js';

/** Copies should span this many times the last-level cache; from `coldFactor` on the operands count as cold. */
const wantedFactor = 5;
/** At twice the cache an LRU-like cache keeps nothing, and one that replaces at random about a fifth. */
const coldFactor = 2;
const mostCopies = 4096;

export interface RotationSize {
  /** Sets of operands, the plan's own included. */
  copies: number;
  /** Bytes one call touches, and bytes of memory one set takes (gaps of strided views included). */
  bytes: number;
  spanBytes: number;
  /** Whether the sets together are at least coldFactor times the cache. */
  cold: boolean;
}

/** How many sets to make: as many as wanted, as memory allows, and as are sensible to create. */
export function rotationSize(
  bytes: number,
  spanBytes: number,
  llcBytes: number | null,
  limitBytes: number,
): RotationSize {
  if (bytes === 0 || llcBytes === null) return { copies: 1, bytes, spanBytes, cold: false };
  const wanted = Math.ceil((wantedFactor * llcBytes) / bytes) + 1;
  const affordable = Math.floor(limitBytes / spanBytes) + 1;
  const copies = Math.max(1, Math.min(wanted, affordable, mostCopies));
  return { copies, bytes, spanBytes, cold: copies * bytes >= coldFactor * llcBytes };
}

interface Span {
  first: number;
  last: number;
}

/** Copies begin at a multiple of this many elements, so that every view keeps its alignment and hence its kernel. */
const alignment = 512;

/** The range of elements that the plan's tensors reach in each storage they share. */
function spans(plan: Plan): Map<Storage, Span> {
  const found = new Map<Storage, Span>();
  for (const tensor of Object.values(plan.args)) {
    const { offset } = tensor.nativeView;
    const first = offset - (offset % alignment);
    const packed = tensor.packed && (tensor.packed.bytes * 8) / bitsOf(tensor.dtype);
    const last = offset + (packed ?? extent(tensor.shape, tensor.stride));
    const span = found.get(tensor.storage);
    found.set(
      tensor.storage,
      span ? { first: Math.min(span.first, first), last: Math.max(span.last, last) } : { first, last },
    );
  }
  return found;
}

/** Bytes that one more set of operands would take. */
export function spanBytes(plan: Plan): number {
  const dtypes = new Map(Object.values(plan.args).map((tensor) => [tensor.storage, tensor.dtype]));
  let bytes = 0;
  for (const [storage, { first, last }] of spans(plan)) bytes += bytesOf(last - first, dtypes.get(storage)!);
  return bytes;
}

interface Copy {
  plan: Plan;
  tensors: readonly Tensor[];
}

/** A plan like the given one on copies of its tensors. */
function copyPlan(plan: Plan, op: Operator): Copy {
  const flats = new Map<Storage, { flat: Tensor; first: number }>();
  const views: Record<string, Tensor> = {};
  try {
    for (const [storage, { first, last }] of spans(plan)) {
      const { dtype } = Object.values(plan.args).find((tensor) => tensor.storage === storage)!;
      const flat = plan.device.allocate('measure', [last - first], dtype);
      flats.set(storage, { flat, first });
      const source = new Tensor(storage.retain(), first, dtype, [last - first], [1]);
      flat.copyFrom(source, { stream: plan.stream });
      source.dispose();
    }
    for (const [name, { storage, nativeView, dtype, shape, stride, packed }] of Object.entries(plan.args)) {
      const { flat, first } = flats.get(storage)!;
      const at = nativeView.offset - first;
      views[name] = new Tensor(flat.storage.retain(), at, dtype, [...shape], [...stride], packed);
    }
    const copy = op.bind(
      { ...views, ...plan.params },
      {
        backend: plan.backend,
        stream: plan.stream,
        configuration: plan.configuration,
      },
    );
    return { plan: copy, tensors: Object.values(views) };
  } catch (error) {
    for (const view of Object.values(views)) view.dispose();
    throw error;
  } finally {
    for (const { flat } of flats.values()) flat.dispose();
  }
}

function disposeAll(copies: readonly Copy[]): void {
  for (const { plan, tensors } of copies) {
    plan.dispose();
    for (const tensor of tensors) tensor.dispose();
  }
}

/** Plans that take turns; the first is the one that was given and is not disposed with the others. */
export class Rotation implements Disposable {
  readonly plans: readonly Plan[];
  readonly size: RotationSize;
  readonly #copies: Copy[];
  #next = 0;

  private constructor(plan: Plan, copies: Copy[], size: RotationSize) {
    this.size = size;
    this.#copies = copies;
    this.plans = [plan, ...copies.map((copy) => copy.plan)];
  }

  /** Makes the copies. Each queues as many copies as it has operands, and a queue is bounded: so it waits now and then. */
  static async create(plan: Plan, op: Operator, size: RotationSize): Promise<Rotation> {
    const copies: Copy[] = [];
    try {
      while (copies.length < size.copies - 1) {
        copies.push(copyPlan(plan, op));
        if (copies.length % 128 === 0) await plan.stream.mark();
      }
      await plan.stream.mark();
    } catch (error) {
      disposeAll(copies);
      throw error;
    }
    return new Rotation(plan, copies, size);
  }

  /** Bytes of the copies alone. */
  get extraBytes(): number {
    return (this.plans.length - 1) * this.size.spanBytes;
  }

  /** The plan whose operands have rested longest. */
  next(): Plan {
    const plan = this.plans[this.#next]!;
    this.#next = (this.#next + 1) % this.plans.length;
    return plan;
  }

  /** All plans, beginning with the one that has rested longest, for a native loop of `calls` calls in that order. */
  take(calls: number): Plan[] {
    const order = [...this.plans.slice(this.#next), ...this.plans.slice(0, this.#next)];
    this.#next = (this.#next + calls) % this.plans.length;
    return order;
  }

  dispose(): void {
    disposeAll(this.#copies.splice(0));
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
