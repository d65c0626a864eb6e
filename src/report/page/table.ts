// The table of all rows: sorted by any column, a hundred at a time, so that thousands of records open at once.
import { definition, estimate, shown } from '../analysis.js';
import type { PageRow } from '../model.js';
import { at } from '../quantities.js';
import { h, replace } from './dom.js';

interface Column {
  head: string;
  /** Key of a quantity, or a text of the row. */
  key?: string;
  text?: (row: PageRow) => string;
}

const numbers = [
  ...[
    'latency_s',
    'flops_per_s',
    'bytes_per_s',
    'of_roof',
    'tokens_per_s',
    'joules_per_token',
    'joules_per_call',
    'average_b',
    'deviation',
  ],
];

const columns: readonly Column[] = [
  { head: 'case', text: ({ name }) => name },
  { head: 'shape', text: ({ sizes }) => sizes },
  { head: 'type', text: ({ types }) => types },
  { head: 'kernel', text: ({ kernel }) => kernel },
  { head: 'cache', text: ({ cache }) => cache },
  ...numbers.map((key) => ({ head: definition(key).label, key })),
  {
    head: 'flags',
    text: ({ verdict, flags }) => [...(verdict === 'ok' ? [] : [verdict.toUpperCase()]), ...flags].join(' '),
  },
  { head: 'line', text: ({ line }) => String(line) },
];

const step = 100;
const language = new Intl.Collator('en', { numeric: true });

/** Missing numbers stand last whichever way the rest is sorted. */
function compare(column: Column, down: boolean): (a: PageRow, b: PageRow) => number {
  const sign = down ? -1 : 1;
  const { key, text } = column;
  if (key === undefined) return (a, b) => sign * language.compare(text!(a), text!(b));
  return (a, b) => {
    const [x, y] = [estimate(a, key), estimate(b, key)];
    if (!x || !y) return Number(!x) - Number(!y);
    return sign * (x.value - y.value);
  };
}

function cellOf(row: PageRow, { key, text }: Column): HTMLTableCellElement {
  if (key === undefined) return h('td', {}, text!(row));
  const cell = row.cells[at(key)]!;
  if (typeof cell === 'string')
    return h('td', { class: 'number none', title: cell }, row.verdict === 'invalid' ? '' : 'n/a');
  const [value, interval] = shown(row, key).split(/ (?=±)/);
  return h('td', { class: 'number' }, value!, interval ? h('span', { class: 'ci' }, ` ${interval}`) : null);
}

export class RowTable {
  readonly element = h('div');
  #rows: readonly PageRow[] = [];
  #limit = step;
  #sorted: { column: Column; down: boolean } | null = null;

  show(rows: readonly PageRow[]): void {
    this.#rows = rows;
    this.#limit = step;
    this.#draw();
  }

  #draw(): void {
    const { column: by, down } = this.#sorted ?? { column: null, down: false };
    const ordered = by ? [...this.#rows].sort(compare(by, down)) : this.#rows;
    const heads = columns.map((column) => {
      const button = h('button', { type: 'button' }, column.head, column === by ? (down ? ' ▼' : ' ▲') : null);
      button.addEventListener('click', () => {
        this.#sorted = { column, down: column === by && !down };
        this.#draw();
        this.element.querySelectorAll<HTMLElement>('th button')[columns.indexOf(column)]!.focus();
      });
      const sort = column === by ? (down ? 'descending' : 'ascending') : 'none';
      return h('th', { scope: 'col', 'aria-sort': sort, class: column.key ? 'number' : null }, button);
    });
    const body = ordered
      .slice(0, this.#limit)
      .map((row) =>
        h(
          'tr',
          { class: row.verdict === 'invalid' ? 'invalid' : null },
          ...columns.map((column) => cellOf(row, column)),
        ),
      );
    const table = h('table', {}, h('thead', {}, h('tr', {}, ...heads)), h('tbody', {}, ...body));
    const rest = ordered.length - this.#limit;
    const more = (text: string, limit: number): HTMLElement => {
      const button = h('button', { type: 'button', class: 'more' }, text);
      button.addEventListener('click', () => {
        this.#limit = limit;
        this.#draw();
      });
      return button;
    };
    const scroll = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'records' }, table);
    replace(
      this.element,
      scroll,
      rest > 0 ? more(`${Math.min(step, rest)} more of ${rest}`, this.#limit + step) : null,
      rest > step ? more(`all ${rest}`, Number.POSITIVE_INFINITY) : null,
    );
  }
}
