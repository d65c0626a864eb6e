// tune() and what it decides: every configuration computes the same as the definition, one is kept only when it is faster with
// confidence, and nothing uses it unasked.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  attentionGqa,
  attentionMerge,
  type Decision,
  type Device,
  gemm,
  gemmInt4,
  type Operator,
  openDevice,
  type Tensor,
} from '../../src/index.js';
import { librarySearch } from '../../src/library.js';

let device: Device;
let folder: string;
beforeAll(async () => {
  device = await openDevice('cpu');
  folder = mkdtempSync(join(tmpdir(), 'kernwatt-tune-'));
});
afterAll(async () => {
  await device.close();
  rmSync(folder, { recursive: true });
});

const operands = (on: Device, m = 4, n = 64, k = 96, dtype: 'f32' | 'bf16' = 'bf16') => ({
  x: on.random([m, k], dtype, { seed: 1, distribution: 'integers' }),
  w: on.random([n, k], dtype, { seed: 2, distribution: 'integers' }),
});
/** With few copies of the operands: making them takes longest. */
const short = { quick: true, coldLimitBytes: 2 ** 20 };
const list = async (tensor: Tensor) => Array.from(await tensor.read());
/** The one folder of a device below. */
const files = (base: string) => {
  const [only, ...others] = readdirSync(join(base, 'tuned'));
  expect(others).toEqual([]);
  return readdirSync(join(base, 'tuned', only!)).map((name) => join(base, 'tuned', only!, name));
};

describe('the option configuration', () => {
  const devices = ['cpu', ...(librarySearch('emu').some(({ path }) => existsSync(path)) ? ['emu:0', 'emu:1'] : [])];

  /** The plan of every configuration gives the same numbers, all exact, says which it is and keeps to it when it is bound again. */
  async function everyOne(op: Operator, args: Record<string, Tensor | string>): Promise<string[]> {
    const [name, tensor] = Object.entries(args)[0] as [string, Tensor];
    using own = op.bind(args, { dtype: 'f32' });
    const names = own.configurations();
    expect(names[0]).toBe(own.explain().configuration);
    expect(new Set(names).size).toBe(names.length);
    const expected = await list((await own.run()).y!);
    for (const configuration of names) {
      using plan = op.bind(args, { dtype: 'f32', configuration });
      expect(plan.explain().configuration).toBe(configuration);
      expect(await list((await plan.run()).y!)).toEqual(expected);
      plan.rebind({ [name]: tensor });
      expect(plan.explain().configuration).toBe(configuration);
    }
    return names;
  }

  test.each(devices)('every one of %s computes the same whole numbers, and explain() names it', async (name) => {
    await using on = await openDevice(name as 'cpu');
    for (const dtype of ['bf16', 'f32'] as const) {
      const args = operands(on, 20, 72, 400, dtype);
      const names = await everyOne(gemm, args);
      expect(names.length).toBeGreaterThan(name === 'cpu' ? 0 : 5);
      const [first, last] = [gemm(args), gemm(args, { configuration: names.at(-1)! })];
      expect(await list(last.y)).toEqual(await list(first.y));
    }
    const int4 = {
      x: on.random([20, 384], 'bf16', { seed: 1, distribution: 'integers' }),
      w: on.random([72, 384], 'u4', { seed: 2, distribution: 'integers' }),
      scales: on.full([6, 72], 0.5, 'f32'),
    };
    for (const mode of ['fused', 'dequant']) {
      const names = await everyOne(gemmInt4, { ...int4, mode });
      expect(names.length).toBeGreaterThan(name === 'cpu' ? 0 : 5);
    }
    // Where every key weighs the same, a mean over a power of two of them is exact.
    for (const dtype of ['bf16', 'f32'] as const) {
      const names = await everyOne(attentionGqa, {
        q: on.full([1, 1, 4, 32], 0, dtype),
        k: on.random([1, 256, 2, 32], dtype, { seed: 1 }),
        v: on.random([1, 256, 2, 40], dtype, { seed: 2, distribution: 'integers' }),
      });
      expect(names.length).toBeGreaterThan(1);
    }
  });

  test('batchInvariant has one', () => {
    using plan = gemm.bind({ ...operands(device), batchInvariant: true });
    expect(plan.configurations()).toHaveLength(1);
  });

  test('an unknown one is refused, and so is any where there is one way alone', () => {
    const args = operands(device);
    using plan = gemm.bind(args);
    expect(() => gemm.bind(args, { configuration: 'fast' })).toThrow(
      `gemm: configuration is fast, expected one of ${plan.configurations().join(', ')}`,
    );
    expect(() => gemm.bind(args, { configuration: '' })).toThrow(
      'gemm: configuration is , expected one of plan.configurations()',
    );
    const merge = { yParts: device.random([2, 1, 3, 2, 8]), lseParts: device.random([2, 1, 2, 3]) };
    using merged = attentionMerge.bind(merge);
    expect(merged.configurations()).toEqual([]);
    expect(() => attentionMerge.bind(merge, { configuration: 'fast' })).toThrow(
      /expected none: the backend has one way/,
    );
    expect(() => gemm.bind(args, { backend: 'ref', configuration: 'ref' })).toThrow(/expected none/);
  });
});

describe('tune()', () => {
  test('measures every configuration, says what it found and keeps it', async () => {
    const args = operands(device, 2, 256, 512);
    using plan = gemm.bind(args);
    const phases = new Set<string>();
    const result = await gemm.tune(args, { ...short, folder, onProgress: ({ phase }) => phases.add(phase) });
    const names = plan.configurations();
    if (names.length === 1) return expect(result.reason).toMatch(/no other configuration/);
    expect(result.chosen).toBe(names[0]);
    expect(result.candidates.map(({ configuration }) => configuration)).toEqual(names);
    for (const { configuration, seconds, ratio, ci95, failed } of result.candidates) {
      expect(failed).toBeNull();
      expect(seconds).toBeGreaterThan(0);
      if (configuration === result.chosen) expect([ratio, ci95]).toEqual([null, null]);
      else expect(ratio).toBeGreaterThan(0);
    }
    expect(phases.has('decide') || names.length > 4).toBe(true);
    const won = result.configuration !== result.chosen;
    expect(result.speedup === null).toBe(!won);
    if (won) {
      const best = result.candidates.find(({ configuration }) => configuration === result.configuration)!;
      expect(best.ci95![1]).toBeLessThan(1);
      expect(result.speedup!.value).toBeCloseTo(1 / best.ratio!, 10);
      expect(result.speedup!.ci95[0]).toBeGreaterThan(1);
    }
    expect(files(folder)).toEqual([result.file]);
    expect(JSON.parse(readFileSync(result.file!, 'utf8'))).toMatchObject({
      schema: 'kernwatt.tuned/1',
      problem: result.problem,
      configuration: result.configuration,
      chosen: result.chosen,
      cache: 'warm',
    });
    // Nobody asked for it: the plan is as before.
    using after = gemm.bind(args);
    expect(after.explain().configuration).toBe(result.chosen);
    expect(after.explain().tuned).toBeUndefined();
  }, 60_000);

  test('where there is no other, nothing is measured and it says so', async () => {
    const result = await gemm.tune({ ...operands(device), batchInvariant: true }, { folder });
    expect(result).toMatchObject({ speedup: null, candidates: [], file: null });
    expect(result.reason).toBe('there is no other configuration for this problem on cpu, so nothing was measured');
  });

  test('refuses emulated devices, options it has not and an aborted signal, and leaves nothing behind', async () => {
    const args = operands(device);
    const before = device.memory().allocations;
    await expect(gemm.tune(args, { fast: true } as object)).rejects.toThrow(
      /gemm.tune: fast is not an option, expected stream/,
    );
    await expect(gemm.tune(args, { folder: '' })).rejects.toThrow('gemm.tune: folder is , expected a folder or null');
    await expect(gemm.tune(args, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
    expect(device.memory().allocations).toBe(before);
    if (!librarySearch('emu').some(({ path }) => existsSync(path))) return;
    await using emulated = await openDevice('emu');
    await expect(gemm.tune(operands(emulated))).rejects.toMatchObject({
      code: 'ERR_KERNWATT_UNSUPPORTED',
      message: expect.stringContaining('gemm.tune: device is emu:0, expected one that is not emulated'),
    });
  });
});

describe('a device opened with tuned', () => {
  /** As if `configuration` had been measured to be the fastest for the arguments. */
  async function pretend(base: string, change: (decision: Decision) => object = () => ({})): Promise<Decision> {
    const args = operands(device, 3);
    using plan = gemm.bind(args);
    const chosen = plan.configurations()[0]!;
    const configuration = plan.configurations().at(-1)!;
    const speedup = configuration === chosen ? null : { value: 1.123, ci95: [1.1, 1.14] as const };
    await using tuning = await openDevice('cpu', { tuned: base });
    const { tuned } = tuning;
    await tuned!.keep({
      createdAt: '2026-11-22T10:00:00.000Z',
      op: 'gemm',
      problem: plan.problem,
      configuration,
      chosen,
      speedup,
      measured: 5,
      cache: 'cold',
    });
    const [file] = files(base);
    const decision = JSON.parse(readFileSync(file!, 'utf8')) as Decision;
    writeFileSync(file!, JSON.stringify({ ...decision, ...change(decision) }));
    return decision;
  }
  const emptyFolder = () => mkdtempSync(join(folder, 'base-'));
  const explained = async (base: string) => {
    await using on = await openDevice('cpu', { tuned: base });
    const args = operands(on, 3);
    using plan = gemm.bind(args);
    const { configuration, tuned } = plan.explain();
    expect(await list((await plan.run()).y)).toEqual(await list(gemm(args, { backend: 'ref' }).y));
    return { configuration, tuned: tuned!, ignored: on.tuned!.ignored, decisions: on.tuned!.decisions };
  };

  test('uses what was measured for this very problem and says how much it brings', async () => {
    const base = emptyFolder();
    const { configuration, chosen } = await pretend(base);
    const found = await explained(base);
    expect(found.configuration).toBe(configuration);
    if (configuration !== chosen)
      expect(found.tuned).toEqual({
        state: 'used',
        reason: `tuned: ${configuration} measured 1.12x over the chooser's ${chosen} (95 % CI 1.10x to 1.14x), 2026-11-22`,
      });
    await using on = await openDevice('cpu', { tuned: base });
    using other = gemm.bind(operands(on, 5));
    expect(other.explain().tuned).toEqual({
      state: 'unmeasured',
      reason: 'nobody has measured this problem on this device: await gemm.tune(args) does',
    });
    // What is asked for comes first, and the definition has no configurations.
    using asked = gemm.bind(operands(on, 3), { configuration: chosen });
    expect(asked.explain()).toMatchObject({ configuration: chosen });
    expect(asked.explain().tuned).toBeUndefined();
    using ref = gemm.bind(operands(on, 3), { backend: 'ref' });
    expect(ref.explain().tuned).toBeUndefined();
  });

  test('keeps the own choice where nothing was faster', async () => {
    const base = emptyFolder();
    const { chosen } = await pretend(base, (decision) => ({ configuration: decision.chosen, speedup: null }));
    const found = await explained(base);
    expect(found.configuration).toBe(chosen);
    expect(found.tuned).toEqual({
      state: 'kept',
      reason: `measured 5 configurations: none beats the chooser's ${chosen}, 2026-11-22`,
    });
  });

  test.each<[string, (decision: Decision) => object, string, RegExp]>([
    ['another schema', () => ({ schema: 'kernwatt.tuned/2' }), 'schema', /its schema is not kernwatt.tuned\/1/],
    ['parts missing', () => ({ chosen: undefined }), 'corrupt', /parts of it are missing or wrong/],
    ['a speedup that is none', () => ({ speedup: { value: 'fast' } }), 'corrupt', /parts of it are missing or wrong/],
    ['another problem', () => ({ problem: 'gemm cpu: x' }), 'corrupt', /parts of it are missing or wrong/],
    [
      'other code',
      ({ identity }) => ({ identity: { ...identity, code: 'feed' } }),
      'device',
      /it was measured with code feed, here [0-9a-f]{16}/,
    ],
    [
      'another version',
      ({ identity }) => ({ identity: { ...identity, version: '9.9.9' } }),
      'device',
      /it was measured with version 9.9.9, here /,
    ],
  ])('ignores a file of %s and says so', async (_, change, why, reason) => {
    const base = emptyFolder();
    const { chosen } = await pretend(base, change);
    const found = await explained(base);
    expect(found).toMatchObject({ configuration: chosen, decisions: [], ignored: [{ why, file: files(base)[0] }] });
    expect(found.ignored[0]!.reason).toMatch(reason);
    expect(found.tuned.state).toBe('ignored');
    expect(found.tuned.reason).toMatch(reason);
  });

  test.each([
    ['', 'it is not JSON'],
    ['{"schema":', 'it is not JSON'],
    ['null', 'its schema is not kernwatt.tuned/1'],
  ])('ignores a file that holds %j', async (text, reason) => {
    const base = emptyFolder();
    await pretend(base);
    writeFileSync(files(base)[0]!, text);
    expect((await explained(base)).tuned).toMatchObject({ state: 'ignored', reason: expect.stringContaining(reason) });
  });

  test('a configuration that the backend does not take is told, not taken', async () => {
    const base = emptyFolder();
    const { chosen } = await pretend(base, () => ({
      configuration: 'gone/blocks',
      speedup: { value: 2, ci95: [1.9, 2.1] },
    }));
    const found = await explained(base);
    expect(found.configuration).toBe(chosen);
    expect(found.tuned).toMatchObject({
      state: 'declined',
      reason: expect.stringContaining('gemm: configuration is gone/blocks, expected one of'),
    });
  });

  test('many writers and readers at a time meet whole files', async () => {
    const base = emptyFolder();
    await pretend(base);
    const done = { value: false };
    const reading = (async () => {
      while (!done.value) expect((await explained(base)).ignored).toEqual([]);
    })();
    await Promise.all(Array.from({ length: 20 }, () => pretend(base)));
    done.value = true;
    await reading;
    expect(files(base)).toHaveLength(1);
  });

  test('a folder that is none, or cannot be written, costs nothing but a note', async () => {
    const file = join(emptyFolder(), 'file');
    writeFileSync(file, '');
    expect((await explained(file)).tuned.state).toBe('unmeasured');
    await using on = await openDevice('cpu', { tuned: file });
    const result = await gemm.tune(operands(on, 2, 64, 64, 'f32'), short);
    if (result.candidates.length > 0) expect(result.notes[0]).toMatch(/^not kept: .* cannot be written \(ENOTDIR\)$/);
    await expect(openDevice('cpu', { tuned: '' })).rejects.toThrow(
      'openDevice: tuned is , expected true, false or a folder',
    );
  }, 60_000);
});
