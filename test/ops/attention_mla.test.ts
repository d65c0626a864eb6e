// attention_mla: identities that hold whatever the definition says (absorbed is expanded, it is attention_gqa_paged with one key
// head, decoding token by token is prefill, parts are the whole), and what it refuses.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  attentionGqa,
  attentionGqaPaged,
  attentionMla,
  type Backend,
  type Device,
  gemm,
  kvAppend,
  openDevice,
  type Tensor,
} from '../../src/index.js';
import { close, dequantised, share } from './attention.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());
const i32 = (values: readonly number[], shape: number[] = [values.length]) =>
  device.tensor(Int32Array.from(values), shape);
const refused = (code: string, message: string) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `attention_mla: ${message}` });

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test('absorbed is attention of expanded keys and values', async () => {
    const [heads, nope, rope, dimV, latent, length] = [3, 20, 8, 12, 32, 33];
    const [dim, scale] = [latent + rope, 1 / Math.sqrt(nope + rope)];
    const random = (shape: number[], seed: number) => device.random(shape, 'f32', { seed });
    const wuk = random([heads, latent, nope], 1); // keys from latents, turned over: out by in of the absorbed product
    const wuv = random([heads, dimV, latent], 2);
    const c = random([length, dim], 3);
    const qNope = random([heads, 1, nope], 4);
    const qRope = random([heads, 1, rope], 5);

    const q = device.empty([1, 1, heads, dim]);
    const rows = q.view([1, heads, dim]).permute([1, 0, 2]);
    gemm({ x: qNope, w: wuk, y: rows.slice([null, null, [0, latent]]) }, { backend });
    rows.slice([null, null, [latent, dim]]).copyFrom(qRope);
    const { y } = attentionMla(
      {
        q,
        cCache: c.view([1, length, dim]),
        pageTable: i32([0], [1, 1]),
        lensKv: i32([length]),
        latent,
        scale,
      },
      { backend },
    );
    const out = gemm({ x: y.view([1, heads, latent]).permute([1, 0, 2]), w: wuv }, { backend });

    const latents = c.slice([null, [0, latent]]);
    const k = device.empty([1, length, heads, nope + rope]);
    const v = device.empty([1, length, heads, dimV]);
    const ofHead = (t: Tensor) => t.view([length, heads, t.shape[3]!]).permute([1, 0, 2]);
    gemm({ x: latents, w: wuk.permute([0, 2, 1]).contiguous(), y: ofHead(k).slice([null, null, [0, nope]]) });
    for (let h = 0; h < heads; ++h)
      ofHead(k)
        .slice([[h, h + 1], null, [nope, nope + rope]])
        .copyFrom(c.view([1, length, dim]).slice([null, null, [latent, dim]]));
    gemm({ x: latents, w: wuv, y: ofHead(v) });
    const expanded = device.empty([1, 1, heads, nope + rope]);
    expanded.slice([null, null, null, [0, nope]]).copyFrom(qNope.view([1, 1, heads, nope]));
    expanded.slice([null, null, null, [nope, nope + rope]]).copyFrom(qRope.view([1, 1, heads, rope]));
    const whole = attentionGqa({ q: expanded, k, v, scale }, { backend });
    close(await list(out.y), await list(whole.y), 4 * share.f32);
  });

  test('it is attentionGqaPaged with one key head whose values are columns of its keys, bit for bit', async () => {
    const [latent, dim, pageSize] = [40, 56, 8];
    const cCache = device.random([9, pageSize, dim], 'f32', { seed: 1 });
    const q = device.random([2, 3, 5, dim], 'f32', { seed: 2 });
    const common = { q, pageTable: i32([3, 1, 8, 0, 5, 2], [2, 3]), lensKv: i32([21, 9]), lensQ: i32([3, 1]) };
    const mla = attentionMla({ ...common, cCache, latent, scale: 0.2 }, { backend });
    const kCache = cCache.view([9, pageSize, 1, dim]);
    const vCache = kCache.slice([null, null, null, [0, latent]]);
    const paged = attentionGqaPaged({ ...common, kCache, vCache, scale: Math.fround(0.2) }, { backend });
    expect(await list(mla.y)).toEqual(await list(paged.y));
    expect(await list(mla.lse)).toEqual(await list(paged.lse));
  });

  test('decoding token by token is prefill', async () => {
    const [length, heads, latent, dim] = [20, 6, 64, 80];
    const cCache = device.random([2, 16, dim], 'f32', { seed: 3 });
    const q = device.random([1, length, heads, dim], 'f32', { seed: 4 });
    const at = (lenKv: number) => ({
      cCache,
      pageTable: i32([1, 0], [1, 2]),
      lensKv: i32([lenKv]),
      latent,
      scale: 0.1,
    });
    const prefill = await list(attentionMla({ q, ...at(length) }, { backend }).y);
    const steps: number[] = [];
    for (let i = 0; i < length; ++i)
      steps.push(...(await list(attentionMla({ q: q.slice([null, [i, i + 1]]), ...at(i + 1) }, { backend }).y)));
    close(steps, prefill, share.f32);
  });
});

test.each<Backend>(['ref', 'cpu'])(
  'a cache of f8e4m3 on %s is one of f32 that holds what it stands for',
  async (backend) => {
    const [latent, rope, heads, pageSize, length] = [40, 16, 5, 17, 60];
    const [dim, maxPages] = [latent + rope, Math.ceil(length / pageSize)];
    const cCache = device.full([maxPages, pageSize, dim], Number.NaN, 'f8e4m3');
    const rows = cCache.view([maxPages, pageSize, 1, dim]);
    const cScale = device.tensor([0.03]);
    const where = { pageTable: i32([2, 0, 1, 3], [1, maxPages]), lensKv: i32([length]) };
    const [kCache, vCache] = [
      rows.slice([null, null, null, [latent, dim]]),
      rows.slice([null, null, null, [0, latent]]),
    ];
    const [k, v] = [rope, latent].map((n) => device.random([1, length, 1, n], 'bf16', { seed: n })) as [Tensor, Tensor];
    kvAppend({ k, v, kCache, vCache, kScale: cScale, vScale: cScale, ...where }, { backend });
    const whole = await dequantised(cCache, cScale);
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const q = device.random([1, 2, heads, dim], dtype, { seed: 3 });
      const wide = device.tensor(await q.read(), q.shape);
      const f8 = attentionMla({ q, cCache, cScale, ...where, latent, scale: 0.2 }, { backend, dtype: 'f32' });
      const f32 = attentionMla({ q: wide, cCache: whole, ...where, latent, scale: 0.2 }, { backend });
      close(await list(f8.y), await list(f32.y), share[dtype]);
      close(await list(f8.lse), await list(f32.lse), share.f32);
    }
  },
);

test('the keys of a request in parts are the whole, and the same every time', async () => {
  const [latent, dim, maxPages] = [128, 192, 120];
  const pages = Array.from({ length: 2 * maxPages }, (_, i) => (i * 7) % (2 * maxPages));
  const cCache = device.random([2 * maxPages, 16, dim], 'bf16', { seed: 5 });
  const q = device.random([2, 1, 12, dim], 'bf16', { seed: 6 });
  const common = { q, cCache, pageTable: i32(pages, [2, maxPages]), lensKv: i32([1900, 40]), latent, scale: 0.07 };
  const of = async (args: { splits?: number; batchInvariant?: boolean }) =>
    list(attentionMla({ ...common, ...args }, { dtype: 'f32' }).y);
  const whole = await of({ splits: 1 });
  for (const args of [{}, { splits: 3 }, { batchInvariant: true }]) {
    const parts = await of(args);
    close(parts, whole, share.bf16);
    for (let i = 0; i < 5; ++i) expect(await of(args)).toEqual(parts);
  }
});

test('refuses a latent beyond the row, rows too long, and values out of range', async () => {
  const good = {
    q: device.zeros([1, 1, 2, 24]),
    cCache: device.zeros([4, 4, 24]),
    pageTable: i32([0, 1], [1, 2]),
    lensKv: i32([5]),
    scale: 1,
    latent: 16,
  };
  expect(() => attentionMla({ ...good, latent: 25 })).toThrow(
    refused('SHAPE', 'latent is 25, expected at most dim 24'),
  );
  expect(() => attentionMla({ ...good, latent: 0 })).toThrow(/latent is 0/);
  expect(() => attentionMla({ ...good, q: device.zeros([1, 1, 2, 600]), cCache: device.zeros([4, 4, 600]) })).toThrow(
    refused('UNSUPPORTED', 'dim is 600, expected at most 576'),
  );
  const f8 = { ...good, cCache: device.zeros([4, 4, 24], 'f8e4m3') };
  expect(() => attentionMla(f8)).toThrow(
    refused('ARGUMENT', 'cScale is missing with a cache of f8e4m3, expected it with f8e4m3 alone'),
  );
  expect(() => attentionMla({ ...good, cScale: device.full([1], 1) })).toThrow(
    refused('ARGUMENT', 'cScale is given with a cache of f32, expected it with f8e4m3 alone'),
  );
  expect(() => attentionMla({ ...f8, cScale: device.full([2], 1) })).toThrow(
    refused('SHAPE', 'cScale has one 2, expected 1'),
  );
  expect(() => attentionMla({ ...good, lensKv: i32([9]) })).toThrow(
    refused('INDEX', 'lensKv[0] is 9, expected 0 to 8'),
  );
  const { scale: _, ...unscaled } = good;
  expect(() => attentionMla(unscaled as typeof good)).toThrow(/scale/);
  const spoilt = device.empty([1, 2], 'i32').copyFrom(i32([0, 77], [1, 2]));
  attentionMla({ ...good, pageTable: spoilt });
  await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'page_table[0, 1] is 77, expected 0 to 3'));
});
