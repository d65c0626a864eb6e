// A report as compact JSON for the page: columns instead of rows, texts once each, six significant digits (a page rounds to three).
// Runs in Node and in the browser.
import type { Cell, Group, PageRow, Report } from './model.js';
import { quantities, type Weights } from './quantities.js';

const texts = ['file', 'createdAt', 'name', 'sizes', 'types', 'kernel', 'cache', 'verdict'] as const;

/** One value for all rows, or one for each. */
type Column<T> = T | T[];

interface NumberColumn {
  value: Column<number | null>;
  /** Absent where the number is exact. */
  low?: Column<number | null>;
  high?: Column<number | null>;
  /** Position of the reason in `strings`; null where there is a number. */
  why: Column<number | null>;
}

interface PackedGroup extends Omit<Group, 'rows'> {
  count: number;
  texts: Column<number>[];
  line: number[];
  op: Column<number | null>;
  flags: Column<number>;
  numbers: NumberColumn[];
}

export interface Packed extends Omit<Report, 'groups'> {
  weights: Weights;
  strings: string[];
  groups: PackedGroup[];
}

export interface PageGroup extends Omit<Group, 'rows'> {
  rows: readonly PageRow[];
}

export interface PageReport extends Omit<Report, 'groups'> {
  weights: Weights;
  groups: readonly PageGroup[];
}

const column = <T>(values: T[]): Column<T> => (values.every((value) => value === values[0]) ? values[0]! : values);
const take = <T>(from: Column<T>, i: number): T => (Array.isArray(from) ? from[i]! : from);
const rounded = (value: number | null): number | null => (value === null ? null : Number(value.toPrecision(6)));
const known = (cell: Cell) => (typeof cell === 'string' ? null : cell);

export function pack(report: Report, weights: Weights): Packed {
  const strings: string[] = [];
  const positions = new Map<string, number>();
  const text = (value: string): number => {
    const found = positions.get(value) ?? strings.push(value) - 1;
    positions.set(value, found);
    return found;
  };
  const groups = report.groups.map(({ rows, ...group }): PackedGroup => {
    const numbers = quantities.map(({ exact }, i): NumberColumn => {
      const cells = rows.map((row) => row.cells[i]!);
      const end = (of: 'value' | 'low' | 'high') => column(cells.map((cell) => rounded(known(cell)?.[of] ?? null)));
      const why = column(cells.map((cell) => (typeof cell === 'string' ? text(cell) : null)));
      return exact ? { value: end('value'), why } : { value: end('value'), low: end('low'), high: end('high'), why };
    });
    return {
      ...group,
      count: rows.length,
      texts: texts.map((name) => column(rows.map((row) => text(row[name])))),
      line: rows.map(({ line }) => line),
      op: column(rows.map(({ op }) => (op === null ? null : text(op)))),
      flags: column(rows.map(({ flags }) => text(flags.join(' ')))),
      numbers,
    };
  });
  return { ...report, weights, groups, strings };
}

export function unpack({ strings, groups, ...rest }: Packed): PageReport {
  const cell = ({ value, low = value, high = value, why }: NumberColumn, i: number): Cell => {
    const reason = take(why, i);
    return reason === null ? { value: take(value, i)!, low: take(low, i), high: take(high, i) } : strings[reason]!;
  };
  const rowsOf = (group: PackedGroup): PageRow[] =>
    Array.from({ length: group.count }, (_, i) => {
      const words = texts.map((name, t) => [name, strings[take(group.texts[t]!, i)]!] as const);
      const op = take(group.op, i);
      return {
        ...(Object.fromEntries(words) as Record<(typeof texts)[number], string>),
        line: group.line[i]!,
        op: op === null ? null : strings[op]!,
        flags: strings[take(group.flags, i)]!.split(' ').filter(Boolean),
        cells: group.numbers.map((numbers) => cell(numbers, i)),
      };
    });
  return {
    ...rest,
    groups: groups.map((group) => {
      const { device, environment, roofs, sets, caveats } = group;
      return { device, environment, roofs, sets, caveats, rows: rowsOf(group) };
    }),
  };
}
