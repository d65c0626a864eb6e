// A report as Markdown, CSV and JSON.
import { definition, frontOf, labels, paperSlips, rankText, scoring, shown, undecidedText } from './analysis.js';
import type { AlternativeSet, Cell, Group, Report, Row } from './model.js';
import type { Estimate } from './pareto.js';
import { type Form, paretoAxes, quantities, sixMetrics, type Weights } from './quantities.js';

const known = (cell: Cell): cell is Estimate => typeof cell !== 'string';

/** Text that Markdown shows as it is, in a cell or a paragraph. */
const plain = (text: string): string =>
  text.replace(/\s+/g, ' ').replace(/[\\`*_[\]<>|#~]/g, (sign) => (sign === '<' ? '&lt;' : `\\${sign}`));

function grid(heads: readonly string[], rows: readonly (readonly string[])[], numbersFrom: number): string {
  const line = (cells: readonly string[]) => `| ${cells.map(plain).join(' | ')} |`;
  const rule = `|${heads.map((_, i) => (i < numbersFrom ? ' --- ' : ' ---: ')).join('|')}|`;
  return [line(heads), rule, ...rows.map(line)].join('\n');
}

const tableKeys = [
  'latency_s',
  'flops_per_s',
  'bytes_per_s',
  'of_roof',
  'average_b',
  'deviation',
  'joules_per_token',
  'joules_per_call',
];

function measured({ rows }: Group): string {
  const heads = ['case', 'shape', 'type', 'kernel', 'cache', ...tableKeys.map((key) => definition(key).label), 'flags'];
  const lines = rows.map((row) => {
    const invalid = row.verdict === 'invalid';
    const numbers = tableKeys.map((key, i) => (invalid ? (i === 0 ? 'INVALID' : '') : shown(row, key)));
    return [row.name, row.sizes, row.types, row.kernel, row.cache, ...numbers, row.flags.join(' ')];
  });
  return grid(heads, lines, 5);
}

const sentence = (leftOut: readonly { label: string; reason: string }[]): string[] =>
  leftOut.length === 0
    ? []
    : [`Left out: ${leftOut.map(({ label, reason }) => `${label} (${plain(reason)})`).join('; ')}.`];

function frontText(rows: readonly Row[], names: readonly string[]): string {
  const found = frontOf(rows, paretoAxes);
  const { axes, beatenBy, leftOut } = found;
  const heads = ['', ...axes.map((key) => definition(key).label), 'front'];
  const lines = rows.map((row, i) => {
    const by = beatenBy[i];
    return [names[i]!, ...axes.map((key) => shown(row, key)), by == null ? 'yes' : `no: ${names[by]}`];
  });
  const over = axes.map((key) => definition(key).label).join(', ');
  const title = `Pareto front over ${over || 'nothing'}. An alternative is off it only where another is better by more than both intervals.${undecidedText(found)}`;
  return [title, '', grid(heads, lines, 1), '', ...sentence(leftOut)].join('\n').trimEnd();
}

const formNames: Record<Form, string> = { honest: 'the honest form', paper: "the paper's form" };

function scoreText(rows: readonly Row[], names: readonly string[], form: Form, weights: Weights): string {
  const { metrics, members, leftOut } = scoring(rows, form, weights);
  const heads = ['', 'score', ...metrics.map((metric) => `${metric} norm.`), ...metrics.map((m) => `${m} rank`)];
  const lines = members.map(({ score, normalised, ranks }, i) => [
    names[i]!,
    score === null ? 'n/a' : score.toFixed(3),
    ...normalised.map((value) => value.toFixed(2)),
    ...ranks.map(rankText),
  ]);
  const used = metrics.map((metric) => `${metric} ${weights[metric]}`).join(', ');
  const title = `Efficiency score, ${formNames[form]}; weights ${used || 'none'}. Normalised from 0.1 (worst) to 1 (best); ranks are what the intervals allow.`;
  return [title, '', grid(heads, lines, 1), '', ...sentence(leftOut)].join('\n').trimEnd();
}

function setText({ rows: all }: Group, { label, rows: members }: AlternativeSet, weights: Weights): string {
  const rows = members.map((i) => all[i]!);
  const names = labels(rows);
  return [
    `### ${plain(label)}`,
    frontText(rows, names),
    scoreText(rows, names, 'honest', weights),
    scoreText(rows, names, 'paper', weights),
  ].join('\n\n');
}

const lineOf = ({ file, line, reason }: Report['problems'][number]): string => `${file}:${line}: ${reason}`;

const list = (items: readonly string[]): string => items.map((item) => `- ${plain(item)}`).join('\n');

export function markdown({ sources, problems, groups }: Report, weights: Weights): string {
  const parts = [`# kernwatt report`, `From ${sources.map(plain).join(', ')}.`];
  if (problems.length > 0) parts.push(`**${problems.length} lines could not be used:**`, list(problems.map(lineOf)));
  if (groups.length > 1)
    parts.push(`Records of ${groups.length} devices, reported apart: they are never ranked together.`);
  for (const group of groups) {
    parts.push(`## ${plain(group.device)}`);
    parts.push(group.environment.map(([name, value]) => `- ${plain(name)}: ${plain(value)}`).join('\n'));
    parts.push(measured(group));
    if (group.sets.length === 0)
      parts.push('No two records do the same work, so nothing is ranked (`--together` ranks them all the same).');
    for (const set of group.sets) parts.push(setText(group, set, weights));
    parts.push('### What to know', list(group.caveats));
  }
  if (groups.some(({ sets }) => sets.length > 0))
    parts.push("## About the paper's normalisation, ranks and score", list(paperSlips));
  return `${parts.join('\n\n')}\n`;
}

/** One line for each record, SI units in the heads, empty where nothing is known and why in the last column. */
export function csv({ groups }: Report): string {
  const facts = [
    'file',
    'line',
    'id',
    'run_id',
    'created_at',
    'device',
    'name',
    'op',
    'shape',
    'type',
    'kernel',
    'cache',
  ];
  const numbers = quantities.flatMap(({ key, exact }) => (exact ? [key] : [key, `${key}_low`, `${key}_high`]));
  const lines = groups.flatMap(({ device, rows }) =>
    rows.map((row) => {
      const { file, line, id, runId, createdAt, name, op, sizes, types, kernel, cache, verdict, flags, cells } = row;
      const values = quantities.flatMap(({ exact }, i) => {
        const cell = cells[i]!;
        const ends = known(cell) ? [cell.value, cell.low, cell.high] : [null, null, null];
        return exact ? ends.slice(0, 1) : ends;
      });
      const reasons = new Map<string, string[]>();
      for (const [i, cell] of cells.entries())
        if (!known(cell)) reasons.set(cell, [...(reasons.get(cell) ?? []), quantities[i]!.key]);
      const why = [...reasons].map(([reason, keys]) => `${keys.join(' ')}: ${reason}`).join('; ');
      const texts = [file, line, id, runId, createdAt, device, name, op, sizes, types, kernel, cache];
      return [...texts, verdict, flags.join(' '), ...values, why];
    }),
  );
  return [[...facts, 'verdict', 'flags', ...numbers, 'missing'], ...lines]
    .map((line) => `${line.map(field).join(',')}\r\n`)
    .join('');
}

/** RFC 4180; text that a spreadsheet would run as a formula is led by an apostrophe. */
function field(value: string | number | null): string {
  if (value === null) return '';
  if (typeof value === 'number') return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

export function json({ sources, problems, groups }: Report, weights: Weights): string {
  const value = (cell: Cell) => (known(cell) ? cell : { value: null, reason: cell });
  const named = (row: Row) => ({
    ...row,
    cells: undefined,
    values: Object.fromEntries(quantities.map(({ key }, i) => [key, value(row.cells[i]!)])),
  });
  const analysed = (group: Group, { label, rows: members }: AlternativeSet) => {
    const rows = members.map((i) => group.rows[i]!);
    const { axes, leftOut, beatenBy } = frontOf(rows, paretoAxes);
    const form = (which: Form) => {
      const { metrics, members: scored, leftOut: left } = scoring(rows, which, weights);
      return { metrics, leftOut: left, members: scored.map((one, i) => ({ id: rows[i]!.id, ...one })) };
    };
    const beaten = rows.map(({ id }, i) => ({ id, beatenBy: beatenBy[i] == null ? null : rows[beatenBy[i]!]!.id }));
    return {
      label,
      pareto: { axes, leftOut, members: beaten },
      scores: { honest: form('honest'), paper: form('paper') },
    };
  };
  const content = {
    schema: 'kernwatt.report/0',
    sources,
    problems,
    weights: Object.fromEntries(sixMetrics.map((metric) => [metric, weights[metric]])),
    quantities: quantities.map(({ key, label, unit, better }) => ({ key, label, unit, better })),
    groups: groups.map((group) => ({
      ...group,
      environment: Object.fromEntries(group.environment),
      rows: group.rows.map(named),
      sets: group.sets.map((set) => analysed(group, set)),
    })),
  };
  return `${JSON.stringify(content, null, 2)}\n`;
}
