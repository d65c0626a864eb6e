// What tests of pools share: a product with one weight, small or large, in whole numbers, and its answer.
import { expect } from 'vitest';
import { type Device, gemm, type PoolOptions } from '../src/index.js';
import { native } from '../src/native.js';
import { randomSource } from '../src/random.js';
import { collect } from './native/raw.js';

export const refused = (code: string, message: string) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });

/** Native objects alive, once what earlier tests dropped is collected. */
export const living = async (device: Device) => {
  await device.stream.mark();
  await collect();
  return native().counters();
};

export const [k, n] = [12, 10];
export const integers = (size: number, seed: number) => {
  const next = randomSource(seed);
  return Float32Array.from({ length: size }, () => Math.floor(next() * 9) - 4);
};
/** y = x Wᵀ in whole numbers, exact in every type. */
export const product = (x: Float32Array, w: Float32Array, depth: number) => {
  const [rows, columns] = [x.length / depth, w.length / depth];
  return Float32Array.from({ length: rows * columns }, (_, at) => {
    const [row, column] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    for (let i = 0; i < depth; ++i) sum += x[row * depth + i]! * w[column * depth + i]!;
    return sum;
  });
};

export const weights = integers(n * k, 1);
/** A pool for `m` rows of a product with one weight, which the caller gives up. */
export const makeSmall = (device: Device, options: PoolOptions = {}, m = 8) => {
  using w = device.tensor(weights, [n, k]);
  return gemm.pool({ m, w }, options);
};
export const input = (m: number, seed = m) => integers(m * k, seed);
export const answer = (x: Float32Array) => product(x, weights, k);

/** Large enough to go the way of large requests, and to be uploaded in more than one turn. */
export const wide = { k: 4096, n: 2, m: 100 };
const wideWeights = integers(wide.n * wide.k, 2);
export const wideX = integers(wide.m * wide.k, 3);
export const makeWide = (device: Device, options: PoolOptions = {}) => {
  using w = device.tensor(wideWeights, [wide.n, wide.k]);
  return gemm.pool({ m: wide.m, w }, options);
};
export const wideAnswer = product(wideX, wideWeights, wide.k);
