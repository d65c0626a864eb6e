// Files of checkpoints with random bytes changed, or cut anywhere: they open with every tensor inside of them, or are refused.
import { writeFileSync } from 'node:fs';
import { expect } from 'vitest';
import { type Checkpoint, CheckpointError } from '../../src/checkpoint/index.js';
import { KernwattError } from '../../src/index.js';
import { randomSource } from '../../src/random.js';

export async function fuzzed(
  good: Buffer,
  path: string,
  open: (path: string) => Promise<Checkpoint>,
  seed: number,
): Promise<void> {
  const next = randomSource(seed);
  const below = (n: number) => Math.floor(next() * n);
  let opened = 0;
  for (let i = 0; i < 600; ++i) {
    const bytes = Buffer.from(good);
    for (let n = 1 + below(3); n > 0; --n) bytes[below(bytes.length)] = below(256);
    const cut = i % 3 === 0 ? bytes.subarray(0, below(bytes.length)) : bytes;
    writeFileSync(path, cut);
    try {
      await using checkpoint = await open(path);
      for (const { name, bytes: size } of checkpoint.tensors.values()) {
        expect(size).toBeLessThanOrEqual(cut.length);
        expect((await checkpoint.read(name)).length).toBe(size);
      }
      ++opened;
    } catch (error) {
      expect(error).toBeInstanceOf(CheckpointError);
      expect(error).toBeInstanceOf(KernwattError);
    }
  }
  // Changes within the data, or of a name.
  expect(opened).toBeGreaterThan(10);
}
