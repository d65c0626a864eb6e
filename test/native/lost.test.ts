// A device that is lost: whichever call notices first, everything later fails at once with that first cause, on every device
// opened on it, and all of it can still be closed.
import { describe, expect, test } from 'vitest';
import { native } from '../../src/native.js';
import { Bench, fakeLibrary } from './raw.js';

const lost = (message: RegExp) =>
  expect.objectContaining({ code: 'ERR_KERNWATT_DEVICE_LOST', message: expect.stringMatching(message) });

/** A device whose work has just lost it, which nobody knows yet, and everything that could be called. */
async function dying() {
  const library = fakeLibrary('lost');
  const bench = await Bench.open({ kind: 'library', library });
  const second = await Bench.open({ kind: 'library', library });
  const x = bench.tensor([1]);
  const large = bench.empty([300_000]);
  const args = { x, w: x, y: x, alpha: 1, beta: 0 };
  const plan = bench.plan(args, 'library');
  await bench.mark();
  native().enqueue(bench.plan({ ...args, alpha: -3 }, 'library'));
  await new Promise((done) => setTimeout(done, 50));
  const { stream, device } = bench;
  const n = native();
  const one = Float32Array.of(2);
  const sampling = { cases: [[plan]], order: new Uint32Array(1), calls: Uint32Array.of(1), clock: 'stream' } as const;
  const calls: Record<string, () => unknown> = {
    alloc: () => n.alloc(device, 3_000_000),
    'a small write': () => n.write(stream, x, one, false),
    'a large write': () => n.write(stream, large, new Float32Array(300_000), false),
    read: () => n.read(stream, x, one, false),
    'a large read': () => n.read(stream, large, new Float32Array(300_000), false),
    copy: () => n.copy(stream, x, { ...large, shape: [1], stride: [1] }),
    fill: () => n.fill(stream, x, 'normal', 1, 0, 1),
    hash: () => n.hash(stream, x),
    enqueue: () => n.enqueue(plan),
    createStream: () => n.createStream(device),
    sample: () => n.sample(stream, sampling),
    memory: () => n.memory(device),
    mark: () => n.mark(stream),
    syncNow: () => n.syncNow(stream),
  };
  const others: Record<string, () => unknown> = {
    createPlan: () => bench.plan(args, 'library'),
    rebindPlan: () => n.rebindPlan(plan, args),
    trim: () => n.trim(device),
    hostBuffer: () => n.hostBuffer(device, 64),
    'the other device': () => n.alloc(second.device, 4),
    'the other stream': () => n.mark(second.stream),
  };
  return { bench, second, library, calls, others };
}

const names = Object.keys((await dying()).calls);

describe.each(names)('noticed by %s', (name) => {
  test('is what everything says from then on', async () => {
    const { bench, second, library, calls, others } = await dying();
    // Work that is queued reports its failure to the next promise.
    let first: unknown;
    try {
      await calls[name]!();
      await native().mark(bench.stream);
    } catch (error) {
      first = error;
    }
    expect(first).toEqual(lost(/^fake: the device is lost, report 1$|first error was: fake: .* report 1$/));
    const later = lost(
      /device is lost, expected one that works, in a new process; its first error was: fake: .* report 1$/,
    );
    for (const [other, call] of Object.entries({ ...calls, ...others })) expect(call, other).toThrow(later);
    await expect(native().openDevice({ kind: 'library', library })).rejects.toEqual(later);
    for (const one of [bench, second]) {
      await native().destroyStream(one.stream);
      await one.close();
    }
  });
});
