// Attention as plain loops over numbers read back from tensors: what the tests of the attention operators compare with.
import { expect } from 'vitest';
import type { Tensor } from '../../src/index.js';

/** A tensor's numbers, by index. */
export class Numbers {
  constructor(
    readonly data: ArrayLike<number>,
    readonly shape: readonly number[],
  ) {}

  static async of(t: Tensor): Promise<Numbers> {
    return new Numbers(await t.read(), t.shape);
  }

  /** An index into a dimension of size 1 counts as 0. */
  at(...index: number[]): number {
    let offset = 0;
    for (const [d, size] of this.shape.entries()) offset = offset * size + (size === 1 ? 0 : index[d]!);
    return this.data[offset]!;
  }
}

export interface Attention extends Params {
  q: Numbers;
  k: Numbers;
  v: Numbers;
  bias?: Numbers;
  mask?: Numbers;
  alibi?: Numbers;
  sink?: Numbers;
  lensQ?: readonly number[];
  lensKv?: readonly number[];
}

export interface Params {
  scale?: number;
  softcap?: number;
  causal?: boolean;
  windowLeft?: number;
  windowRight?: number;
  maskBlockQ?: number;
  maskBlockKv?: number;
}

/** The result [batch, lenQ, headsQ, dimV] and its logarithms [batch, headsQ, lenQ], flat. */
export function attend(a: Attention): { y: number[]; lse: number[] } {
  const [batch, lenQ, headsQ, dim] = a.q.shape as [number, number, number, number];
  const [, lenKv, headsKv, dimV] = a.v.shape as [number, number, number, number];
  const y = new Array<number>(batch * lenQ * headsQ * dimV).fill(0);
  const lse = new Array<number>(batch * headsQ * lenQ).fill(Number.NEGATIVE_INFINITY);
  for (let b = 0; b < batch; ++b)
    for (let h = 0; h < headsQ; ++h)
      for (let i = 0; i < lenQ; ++i) {
        const [queries, keys] = [a.lensQ?.[b] ?? lenQ, a.lensKv?.[b] ?? lenKv];
        if (i >= queries) continue;
        const group = Math.floor(h / (headsQ / headsKv));
        const place = i + keys - queries;
        const weights: number[] = [];
        for (let j = 0; j < keys; ++j) {
          const [left, right] = [a.windowLeft ?? -1, a.windowRight ?? -1];
          const hidden =
            (a.causal && j > place) ||
            (left >= 0 && j < place - left) ||
            (right >= 0 && j > place + right) ||
            a.mask?.at(b, h, Math.floor(i / (a.maskBlockQ ?? 1)), Math.floor(j / (a.maskBlockKv ?? 1))) === 0;
          if (hidden) continue;
          let score = 0;
          for (let e = 0; e < dim; ++e) score += a.q.at(b, i, h, e) * a.k.at(b, j, group, e);
          score *= a.scale ?? 1 / Math.sqrt(dim);
          if (a.softcap) score = a.softcap * Math.tanh(score / a.softcap);
          score += (a.bias?.at(b, h, i, j) ?? 0) - (a.alibi?.at(h) ?? 0) * Math.abs(place - j);
          weights[j] = Math.exp(score);
        }
        const total = weights.reduce((sum, w) => sum + w, a.sink ? Math.exp(a.sink.at(h)) : 0);
        lse[(b * headsQ + h) * lenQ + i] = Math.log(total);
        weights.forEach((w, j) => {
          for (let e = 0; e < dimV; ++e)
            y[((b * lenQ + i) * headsQ + h) * dimV + e]! += (w / total) * a.v.at(b, j, group, e);
        });
      }
  return { y, lse };
}

/** What a cache of `f8e4m3` stands for, its scales by head in the last dimension but one. */
export async function dequantised(cache: Tensor, scales: Tensor): Promise<Tensor> {
  const factors = await scales.read();
  const columns = cache.shape.at(-1)!;
  const values = Float32Array.from(
    await cache.read(),
    (x, i) => x * Number(factors[Math.floor(i / columns) % factors.length]),
  );
  return cache.device.tensor(values, cache.shape);
}

/** Within a share of 1 + |want|, element by element; infinities have to be the same. */
export function close(have: ArrayLike<number>, want: ArrayLike<number>, share = 1e-5): void {
  expect(have.length).toBe(want.length);
  const far: string[] = [];
  for (let i = 0; i < have.length; ++i) {
    const [a, b] = [have[i]!, want[i]!];
    if (a !== b && !(Math.abs(a - b) <= share * (1 + Math.abs(b)))) far.push(`element ${i} is ${a}, expected ${b}`);
  }
  expect(far).toEqual([]);
}

/** How far two ways of computing the same may be apart, by dtype. */
export const share = { f32: 1e-5, bf16: 2 ** -7, f16: 2 ** -10 } as const;
