// What a case becomes: shapes of dimensions that broadcast, contents that inputs may hold, memory layouts, and NaN in every part
// that nothing may read.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, type Case, type Device, gemm, type Layout, openDevice } from '../src/index.js';
import { Guarded, type Operand, planCase } from '../src/operands.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const dims = { batch: 2, lenQ: 5, lenKv: 6, headsQ: 4, headsKv: 2, dim: 8, dimV: 8 };
const operandsOf = (c: Omit<Case, 'name' | 'dims'>, seed = 0, sizes: Record<string, number> = dims) => {
  const { operands } = planCase(attentionGqa, { name: 'a case', dims: sizes, ...c }, seed);
  return Object.fromEntries(operands.map((operand) => [operand.name, operand])) as Record<string, Operand>;
};

describe('dimensions that broadcast', () => {
  test('are full unless the case says otherwise, by tensor or by dimension', () => {
    const shape = (broadcast: Case['broadcast']) =>
      operandsOf({ with: ['bias'], ...(broadcast ? { broadcast } : {}) }).bias!;
    expect(shape(undefined)).toMatchObject({ shape: [2, 4, 5, 6], repeated: [false, false, false, false] });
    expect(shape({ bias: 'one' }).shape).toEqual([1, 4, 5, 6]);
    expect(shape({ 'bias.headsQ': 'one' }).shape).toEqual([2, 1, 5, 6]);
    expect(shape({ 'bias.batch': 'shared', 'bias.headsQ': 'one' })).toMatchObject({
      shape: [2, 1, 5, 6],
      repeated: [true, false, false, false],
    });
  });

  test('may be absent in front', () => {
    const shapes = (broadcast: Case['broadcast']) =>
      planCase(gemm, { name: 'a case', dims: { batch: 3, m: 2, rowsW: 4, k: 5 }, broadcast: broadcast! }).operands.map(
        ({ shape }) => shape,
      );
    expect(shapes({ w: 'absent' })).toEqual([
      [3, 2, 5],
      [4, 5],
      [3, 2, 4],
    ]);
    expect(shapes({ x: 'absent', w: 'absent' })).toEqual([
      [2, 5],
      [4, 5],
      [2, 4],
    ]);
    expect(shapes({ x: 'one', w: 'one' })).toEqual([
      [1, 2, 5],
      [1, 4, 5],
      [1, 2, 4],
    ]);
  });

  test('one more than another: sequences begin and end', () => {
    const packed = { ...dims, batch: 1, sequences: 3 };
    expect(operandsOf({ with: ['cuQ', 'cuKv'] }, 0, packed).cuQ!.shape).toEqual([4]);
  });

  test('a name that the operator does not have is refused', () => {
    expect(() => operandsOf({ broadcast: { 'biass.batch': 'one' } })).toThrow('did you mean bias?');
    expect(() => operandsOf({ values: { lens: [1] } })).toThrow('lens is not an argument');
  });
});

describe('contents', () => {
  const numbers = (operand: Operand | undefined) => Array.from(operand!.contents!);

  test('are what the case says, one value or all of them', () => {
    const o = operandsOf({ with: ['lensKv', 'sink'], values: { lensKv: [6, 0], sink: 2 } });
    expect(numbers(o.lensKv)).toEqual([6, 0]);
    expect(numbers(o.sink)).toEqual([2, 2, 2, 2]);
    expect(o.q!.contents).toBeUndefined();
  });

  test('else within what the input may hold, by seed', () => {
    const sizes = { ...dims, batch: 40 };
    const lengths = (seed: number) => numbers(operandsOf({ with: ['lensKv'] }, seed, sizes).lensKv);
    expect(lengths(1)).toEqual(lengths(1));
    expect(lengths(1)).not.toEqual(lengths(2));
    expect([...new Set(lengths(1))].sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const packed = operandsOf({ with: ['cuQ', 'cuKv'] }, 3, { ...dims, batch: 1, sequences: 20 });
    const offsets = numbers(packed.cuKv);
    expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
    expect(offsets.every((at) => at >= 0 && at <= 6)).toBe(true);
    expect(new Set(numbers(operandsOf({ with: ['mask'] }, 1).mask))).toEqual(new Set([0, 1, 2]));
  });
});

describe('memory', () => {
  const make = (operand: Operand) => {
    const made = Guarded.make(device, operand);
    made.fill(operand, { distribution: 'constant', parameters: { value: 1 } });
    return made;
  };
  const read = async (operand: Operand) => Array.from(await make(operand).view.read());

  test('is NaN past the lengths of each batch', async () => {
    const o = operandsOf({ with: ['lensQ', 'lensKv'], values: { lensQ: [5, 2], lensKv: [0, 4] } });
    // Rows of heads, one number for each.
    const rows = async (operand: Operand | undefined) =>
      (await read(operand!)).filter((_, i) => i % 8 === 0).map((x) => (Number.isNaN(x) ? 0 : 1));
    const of = (...counts: [real: number, size: number][]) =>
      counts.flatMap(([real, size]) => Array.from({ length: size }, (_, i) => (i < real ? 1 : 0)));
    expect(await rows(o.q)).toEqual(of([20, 20], [8, 20]));
    expect(await rows(o.k)).toEqual(of([0, 12], [8, 12]));
    expect(await rows(o.v)).toEqual(of([0, 12], [8, 12]));
  });

  test('is NaN outside every packed sequence', async () => {
    const values = { cuQ: [0, 5], cuKv: [2, 5] };
    const o = operandsOf({ with: ['cuQ', 'cuKv'], values }, 0, {
      ...dims,
      batch: 1,
      sequences: 1,
      headsKv: 1,
      headsQ: 1,
    });
    expect((await read(o.q!)).some(Number.isNaN)).toBe(false);
    expect((await read(o.k!)).filter((_, i) => i % 8 === 0)).toEqual([Number.NaN, Number.NaN, 1, 1, 1, Number.NaN]);
  });

  test('is NaN where a parameter makes the operator skip an input', async () => {
    const { operands } = planCase(gemm, { name: 'a case', dims: { m: 2, rowsW: 2, k: 2 }, params: { alpha: 0 } });
    expect(await read(operands[0]!)).toEqual(new Array(4).fill(Number.NaN));
  });

  test('lies as the layout says', () => {
    const strides = (layout: Layout) => make(operandsOf({ layout: { q: layout } }).q!).view.stride;
    expect(strides('dense')).toEqual([160, 32, 8, 1]);
    expect(strides('swapped')).toEqual([8, 64, 16, 1]);
    expect(strides('crossed')).toEqual([160, 8, 40, 1]);
    expect(strides('padded')).toEqual([318, 63, 15, 1]);
  });
});
