// What the gate says: a table for terminals, Markdown for pull requests, JUnit XML for build servers.

import { place } from '../records/read.js';
import { digits } from '../report/format.js';
import { table } from '../report/table.js';
import type { GateCase, GateReport } from './gate.js';

const ratio = (value: number | null): string => (value === null ? 'n/a' : value.toFixed(3));
const range = ({ ci95, method }: GateCase): string =>
  ci95 === null ? (method === 'exact' ? 'exact' : 'n/a') : `${ratio(ci95[0])} to ${ratio(ci95[1])}`;
const label = ({ name, cache }: GateCase): string =>
  cache === null || cache === 'unknown' ? name : `${name} (${cache})`;
const runsOf = ({ runs }: GateCase): string => (runs.new === 0 ? '' : `${runs.base} / ${runs.new}`);

/** `fail: 1 of 3 cases above 1.03 times their time`, the last line of every form. */
export function summary({ verdict, cases, problems, metric, maxRatio }: GateReport): string {
  const count = (one: string) => cases.filter((c) => c.verdict === one).length;
  const counts = ['pass', 'fail', 'inconclusive'].map((one) => `${count(one)} ${one}`).join(', ');
  const bad =
    problems.length > 0 ? `; ${problems.length} line${problems.length === 1 ? '' : 's'} could not be used` : '';
  return `${verdict}: ${metric} at most ${digits(maxRatio)} times BASE; ${counts}${bad}`;
}

const heads = ['case', 'NEW / BASE', '95 % interval', 'method', 'runs', 'verdict'];
const cells = (one: GateCase): string[] => [
  label(one),
  ratio(one.ratio),
  range(one),
  one.method ?? '',
  runsOf(one),
  one.verdict,
];

/** Why cases did not pass, one line each. */
const whys = (report: GateReport): string[] =>
  report.cases.flatMap((one) =>
    one.reason === null ? [] : [`${one.verdict} ${label(one)}: ${one.reason} (${one.places.join(', ')})`],
  );

export function text(report: GateReport): string {
  const columns = heads.map((head, i) => ({
    head,
    align: i === 1 || i === 2 ? ('right' as const) : ('left' as const),
  }));
  const grid = report.cases.length > 0 ? [table(columns, report.cases.map(cells))] : [];
  const lines = [...whys(report), ...report.notes.map((note) => `note: ${note}`), summary(report)];
  return [...grid, `${lines.join('\n')}\n`].join('\n');
}

/** Text inside a cell or paragraph: nothing in it may end the cell or start markup. */
const plain = (value: string): string => value.replace(/[\\`*_|<>[\]#]/g, '\\$&').replace(/\s+/g, ' ');

const marks = { pass: '✅', fail: '❌', inconclusive: '❔', 'bad-input': '⚠️' };

export function markdown(report: GateReport): string {
  const row = (values: readonly string[]) => `| ${values.join(' | ')} |`;
  const rows = report.cases.map((one) =>
    row([...cells(one).slice(0, 5).map(plain), `${marks[one.verdict]} ${one.verdict}`]),
  );
  const grid = rows.length > 0 ? ['', row(heads), row(['---', '---:', '---:', '---', '---', '---']), ...rows] : [];
  const items = [
    ...whys(report),
    ...report.problems.map((problem) => `bad input ${place(problem)}: ${problem.reason}`),
    ...report.notes.map((note) => `note: ${note}`),
  ].map((item) => `- ${plain(item)}`);
  const list = items.length > 0 ? ['', ...items] : [];
  return [`**${marks[report.verdict]} ${plain(summary(report))}**`, ...grid, ...list, ''].join('\n');
}

/** For XML attributes and text; characters that XML 1.0 has no way to write become the replacement character. */
const xml = (value: string): string =>
  value
    .replace(/[&<>"'\n\t]/g, (c) => `&#${c.charCodeAt(0)};`)
    .replace(/[^\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, '\uFFFD');

/** A case is a test: fail is a failure, inconclusive is skipped (JUnit has no third verdict), a bad line is an error. */
export function junit(report: GateReport): string {
  const name = `kernwatt gate ${report.metric} at most ${report.maxRatio}`;
  const test = (of: string, body: string) =>
    `    <testcase classname="${xml(name)}" name="${xml(of)}"${body === '' ? '/>' : `>${body}</testcase>`}`;
  const body = (one: GateCase): string => {
    const message = xml(
      `${one.reason}; ratio ${ratio(one.ratio)}, 95 % interval ${range(one)}; ${one.places.join(', ')}`,
    );
    if (one.verdict === 'fail') return `<failure message="${message}"/>`;
    return one.verdict === 'inconclusive' ? `<skipped message="${message}"/>` : '';
  };
  const tests = [
    ...report.cases.map((one) => test(`${one.op ? `${one.op}: ` : ''}${label(one)}`, body(one))),
    ...report.problems.map((problem) => test(place(problem), `<error message="${xml(problem.reason)}"/>`)),
  ];
  const count = (verdict: string) => report.cases.filter((one) => one.verdict === verdict).length;
  const numbers = `tests="${tests.length}" failures="${count('fail')}" errors="${report.problems.length}" skipped="${count('inconclusive')}"`;
  const suite = [`  <testsuite name="${xml(name)}" ${numbers}>`, ...tests, '  </testsuite>'];
  return ['<?xml version="1.0" encoding="UTF-8"?>', `<testsuites ${numbers}>`, ...suite, '</testsuites>', ''].join(
    '\n',
  );
}
