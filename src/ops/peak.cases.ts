// Cases that every backend of peak must get right: sizes at edges of tiles, dtypes, layouts, odd and even numbers of rounds, and
// whole numbers as large as calibration uses.
import type { Case, Layout } from '../case.js';

const floats = ['f32', 'f16', 'bf16'] as const;
const edges = [0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 255, 256, 257];

export function cases(): Case[] {
  return [...memoryCases(), ...multiplyCases(), ...roundCases(), ...exactCases(), ...layoutCases()];
}

function memoryCases(): Case[] {
  return (['read', 'copy'] as const).flatMap((load) =>
    floats.flatMap((x) => [
      ...[...edges, 1023, 1024, 1025, 4099].map((columns) => ({
        name: `${load} ${x}, columns ${columns}`,
        dims: { rows: 3, columns },
        params: { load },
        dtypes: { x },
      })),
      ...[0, 1, 17].map((rows) => ({
        name: `${load} ${x}, rows ${rows}`,
        dims: { rows, columns: 40 },
        params: { load },
        dtypes: { x },
      })),
    ]),
  );
}

/** One dimension at an edge, the others at ease. */
function multiplyCases(): Case[] {
  const dims = { rows: 20, width: 24, columns: 16 };
  const sizes = {
    rows: [0, 1, 11, 12, 13, 15, 16, 17, 63, 64, 65],
    width: [0, 1, 7, 8, 9, 191, 192, 193, 255, 256, 257],
  };
  return (['multiply', 'spin'] as const).flatMap((load) =>
    floats.flatMap((x) =>
      [
        ...sizes.rows.map((rows) => ({ ...dims, rows })),
        ...(load === 'spin' ? [1, 3] : sizes.width).map((width) => ({ ...dims, width })),
        ...[0, 1, 2, 3, 15].map((columns) => ({ ...dims, columns })),
        { rows: 130, width: 300, columns: 1 },
      ].map((d) => ({
        name: `${load} ${x}, ${d.rows} x ${d.width} x ${d.columns}`,
        dims: d,
        params: { load, rounds: 3 },
        with: ['w'],
        dtypes: { x },
      })),
    ),
  );
}

function roundCases(): Case[] {
  return (['multiply', 'spin'] as const).flatMap((load) =>
    floats.flatMap((x) =>
      [1, 2, 3, 4, 7, 8, 9, 16].map((rounds) => ({
        name: `${load} ${x}, rounds ${rounds}`,
        dims: { rows: 12, width: 20, columns: x === 'f32' ? 1 : 16 },
        params: { load, rounds },
        with: ['w'],
        dtypes: { x },
      })),
    ),
  );
}

/** Every bit must be right, however often values are added and taken away again. */
function exactCases(): Case[] {
  return floats.flatMap((x) => [
    ...(['read', 'copy'] as const).map((load) => ({
      name: `${load} ${x}, exact`,
      dims: { rows: 5, columns: 2000 },
      params: { load },
      dtypes: { x },
      exact: true,
    })),
    ...(['multiply', 'spin'] as const).flatMap((load) =>
      [1, 16].flatMap((columns) =>
        [100, 101].map((rounds) => ({
          name: `${load} ${x}, columns ${columns}, rounds ${rounds}, exact`,
          dims: { rows: 33, width: load === 'spin' ? 1 : 40, columns },
          params: { load, rounds },
          with: ['w'],
          dtypes: { x },
          exact: true,
        })),
      ),
    ),
    {
      name: `multiply ${x}, largest whole numbers`,
      dims: { rows: 16, width: 8, columns: 16 },
      params: { load: 'multiply', rounds: 11 },
      with: ['w'],
      dtypes: { x },
      values: { x: 255, w: -255 },
      exact: true,
    },
  ]);
}

function layoutCases(): Case[] {
  return (['padded', 'swapped', 'crossed'] as const).flatMap((layout: Layout): Case[] =>
    floats.flatMap((x) => [
      ...(['read', 'copy'] as const).map((load) => ({
        name: `${load} ${x}, ${layout}`,
        dims: { rows: 7, columns: 100 },
        params: { load },
        dtypes: { x },
        layout: { x: layout, y: layout },
      })),
      {
        name: `multiply ${x}, ${layout}`,
        dims: { rows: 14, width: 30, columns: 16 },
        params: { load: 'multiply', rounds: 5 },
        with: ['w'],
        dtypes: { x },
        layout: { x: layout, w: layout, y: layout },
      },
    ]),
  );
}
