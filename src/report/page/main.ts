// The page of a report: reads the data beside it, lets a reader choose device, set, axes, weights and theme, and draws.
import type { Chart } from 'chart.js';
import { definition, estimate, frontOf, labels, paperSlips, rankText, scoring, undecidedText } from '../analysis.js';
import type { PageRow } from '../model.js';
import { type Packed, type PageGroup, type PageReport, unpack } from '../pack.js';
import { type Form, paretoAxes, quantities, sixMetrics, type Weights } from '../quantities.js';
import { bars, pareto, radar, roofline } from './charts.js';
import { choice, h, replace, section } from './dom.js';
import { RowTable } from './table.js';

const data: PageReport = unpack(JSON.parse(document.getElementById('data')!.textContent!) as Packed);

const state = {
  group: 0,
  /** Position in the sets of the group, or -1 for the rows that the filters leave. */
  set: 0,
  x: 'latency_s',
  // Where no row of a set has joules, another axis takes its place.
  y: 'joules_per_token',
  metric: 'latency_s',
  form: 'honest' as Form,
  weights: { ...data.weights } as Weights,
  search: '',
  op: '',
  type: '',
  cache: '',
};

const group = (): PageGroup => data.groups[state.group]!;
const has = (rows: readonly PageRow[], key: string): boolean => rows.some((row) => estimate(row, key));

/** Rows that the filters above the table leave. */
function filtered(): PageRow[] {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  return group().rows.filter((row) => {
    if (state.op && row.op !== state.op) return false;
    if (state.type && row.types !== state.type) return false;
    if (state.cache && row.cache !== state.cache) return false;
    const text = [row.name, row.op, row.sizes, row.types, row.kernel, row.cache, ...row.flags].join(' ').toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

const valid = (rows: readonly PageRow[]): PageRow[] => rows.filter(({ verdict }) => verdict !== 'invalid');

function chosen(): PageRow[] {
  const set = group().sets[state.set];
  return set ? set.rows.map((i) => group().rows[i]!) : valid(filtered());
}

const charts = new Map<string, Chart>();

/** A chart with a name for those who do not see it, or a sentence where there is nothing to draw. */
function chartBox(id: string, height?: number): { box: HTMLElement; draw: typeof draw } {
  const box = h('div', { class: 'chart', id });
  const draw = (name: string, make: (canvas: HTMLCanvasElement) => Chart | null, none: string, tall = height): void => {
    charts.get(id)?.destroy();
    charts.delete(id);
    const canvas = h('canvas', { role: 'img', 'aria-label': name });
    replace(box, canvas);
    box.style.height = tall === undefined ? '' : `${tall}px`;
    const chart = make(canvas);
    if (chart) charts.set(id, chart);
    else {
      box.style.height = 'auto';
      replace(box, h('p', { class: 'dim' }, none));
    }
  };
  return { box, draw };
}

const roofBox = chartBox('roofline');
const frontBox = chartBox('pareto');
const barBox = chartBox('bars');
const radarBox = chartBox('radar');
const table = new RowTable();
const count = h('span', { class: 'dim', role: 'status' });
const setControls = h('div', { class: 'bar' });
const frontControls = h('div', { class: 'bar' });
const barControls = h('div', { class: 'bar' });
const frontNote = h('p', { class: 'dim' });
const scoreBox = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'scores' });
const scoreNote = h('p', { class: 'dim' });
const facts = h('div');

const options = (keys: readonly string[]) => keys.map((key) => [key, definition(key).label] as const);
const records = (n: number): string => (n === 1 ? '1 record' : `${n} records`);
const leftOut = (left: readonly { label: string; reason: string }[]): string =>
  left.length === 0 ? '' : ` Left out: ${left.map(({ label, reason }) => `${label} (${reason})`).join('; ')}.`;

function drawRoofline(): void {
  const rows = valid(filtered());
  const name = `Roofline: arithmetic intensity against achieved FLOP/s of ${records(rows.length)}`;
  roofBox.draw(name, (canvas) => roofline(canvas, rows, group().roofs), 'No record says how much work it did.');
}

function drawFront(rows: readonly PageRow[]): void {
  const found = frontOf(rows, paretoAxes);
  const { axes, beatenBy, leftOut: left } = found;
  const known = options(paretoAxes.filter((key) => has(rows, key)));
  for (const side of ['x', 'y'] as const)
    if (!axes.includes(state[side]))
      state[side] = axes.find((key) => key !== state[side === 'x' ? 'y' : 'x']) ?? axes[0] ?? state[side];
  const change = (side: 'x' | 'y') => (key: string) => {
    state[side] = key;
    drawFront(chosen());
  };
  replace(frontControls, choice('across', known, state.x, change('x')), choice('up', known, state.y, change('y')));
  const on = beatenBy.filter((by) => by === null).length;
  const over = axes.map((key) => definition(key).label).join(', ');
  frontNote.textContent = `${on} of ${rows.length} are on the front over ${over || 'nothing'}: off it is only what another beats by more than both intervals on one of these, and loses on none.${undecidedText(found)}${leftOut(left)}`;
  const name = `Pareto chart: ${definition(state.x).label} against ${definition(state.y).label}, ${on} of ${rows.length} on the front`;
  frontBox.draw(name, (canvas) => pareto(canvas, rows, beatenBy, state.x, state.y), 'Nothing is known on both axes.');
}

const mostBars = 40;

function drawBars(rows: readonly PageRow[]): void {
  const known = quantities.filter(({ key }) => has(rows, key)).map(({ key }) => key);
  if (!known.includes(state.metric)) state.metric = known[0] ?? state.metric;
  const pick = choice('quantity', options(known), state.metric, (key) => {
    state.metric = key;
    drawBars(chosen());
  });
  const some = rows.length > mostBars ? h('span', { class: 'dim' }, `the first ${mostBars} of ${rows.length}`) : null;
  replace(barControls, pick, some);
  const name = `Bars: ${definition(state.metric).label} of ${records(Math.min(mostBars, rows.length))} with 95 % intervals`;
  const tall = Math.max(180, 70 + 22 * Math.min(mostBars, rows.length));
  barBox.draw(name, (canvas) => bars(canvas, rows, state.metric, mostBars), 'Nothing is known to draw.', tall);
}

const mostSpokes = 6;
const mostScores = 200;

function drawScores(rows: readonly PageRow[]): void {
  const names = labels(rows);
  const all = scoring(rows, state.form, state.weights);
  const order = rows.map((_, i) => i).sort((a, b) => (all.members[b]!.score ?? 0) - (all.members[a]!.score ?? 0));
  const top = order.slice(0, mostSpokes);
  const some = { ...all, members: top.map((i) => all.members[i]!) };
  const formName = state.form === 'honest' ? 'the honest form' : "the paper's form";
  const label = `Radar: normalised ${all.metrics.join(', ')} of ${top.length} alternatives, ${formName}`;
  const none = 'A radar needs three metrics that every alternative has.';
  radarBox.draw(
    label,
    (canvas) =>
      radar(
        canvas,
        top.map((i) => names[i]!),
        some,
      ),
    none,
  );
  const number = (text: string): HTMLTableCellElement => h('td', { class: 'number' }, text);
  const heads = ['alternative', 'score', ...all.metrics.flatMap((metric) => [metric, 'rank'])];
  const body = order.slice(0, mostScores).map((i) => {
    const { score, normalised, ranks } = all.members[i]!;
    const cells = normalised.flatMap((value, m) => [number(value.toFixed(2)), number(rankText(ranks[m]!))]);
    return h(
      'tr',
      {},
      h('td', { class: 'wide' }, names[i]!),
      number(score === null ? 'n/a' : score.toFixed(3)),
      ...cells,
    );
  });
  const headRow = heads.map((text, i) => h('th', { scope: 'col', class: i === 0 ? null : 'number' }, text));
  replace(scoreBox, h('table', {}, h('thead', {}, h('tr', {}, ...headRow)), h('tbody', {}, ...body)));
  const shownOf = rows.length > mostScores ? ` The first ${mostScores} of ${rows.length} are listed.` : '';
  const drawn = rows.length > mostSpokes ? ` The radar shows the ${mostSpokes} best.` : '';
  scoreNote.textContent = `Normalised over this set from 0.1 (worst) to 1 (best); the score is their weighted harmonic mean; a rank such as 1–3 is what the intervals allow.${drawn}${shownOf}${leftOut(all.leftOut)}`;
}

function drawSet(): void {
  const { sets } = group();
  const items = [
    ...sets.map(({ label, rows }, i) => [String(i), `${label} (${rows.length})`] as const),
    ['-1', `the table below, whatever work it holds (${valid(filtered()).length})`] as const,
  ];
  const pick = choice('compare', items, String(state.set), (value) => {
    state.set = Number(value);
    drawSet();
  });
  replace(setControls, pick);
  const rows = chosen();
  drawFront(rows);
  drawBars(rows);
  drawScores(rows);
}

function drawTable(): void {
  const rows = filtered();
  count.textContent = `${rows.length} of ${group().rows.length} records`;
  table.show(rows);
}

/** After a filter changed: what depends on the filtered rows. */
function drawFiltered(): void {
  drawTable();
  drawRoofline();
  drawSet();
}

function drawAll(): void {
  const { caveats, environment } = group();
  const terms = environment.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]);
  replace(facts, h('dl', {}, ...terms), h('ul', {}, ...caveats.map((text) => h('li', {}, text))));
  drawFiltered();
}

const system = matchMedia('(prefers-color-scheme: dark)');
let theme = 'system';

function applyTheme(name = theme): void {
  theme = name;
  const dark = theme === 'dark' || (theme === 'system' && system.matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
}

/** Charts hold colours, so they are drawn again; the table and the choices stay as they are. */
function recolour(): void {
  drawRoofline();
  const rows = chosen();
  drawFront(rows);
  drawBars(rows);
  drawScores(rows);
}

function filters(): HTMLElement {
  const values = (of: (row: PageRow) => string | null) =>
    [...new Set(data.groups.flatMap(({ rows }) => rows.map(of)))].filter((value): value is string => !!value).sort();
  const pick = (name: string, key: 'op' | 'type' | 'cache', all: readonly string[]) =>
    choice(name, [['', 'all'], ...all.map((value) => [value, value] as const)], '', (value) => {
      state[key] = value;
      drawFiltered();
    });
  const search = h('input', { type: 'search', placeholder: 'words in name, shape, kernel, flags' });
  let waiting: ReturnType<typeof setTimeout> | undefined;
  search.addEventListener('input', () => {
    state.search = search.value;
    clearTimeout(waiting);
    waiting = setTimeout(drawFiltered, 120);
  });
  return h(
    'div',
    { class: 'bar filters' },
    h('label', {}, 'find', search),
    pick(
      'operator',
      'op',
      values(({ op }) => op),
    ),
    pick(
      'type',
      'type',
      values(({ types }) => types),
    ),
    pick(
      'cache',
      'cache',
      values(({ cache }) => cache),
    ),
    count,
  );
}

function weightInputs(): HTMLElement {
  const redraw = (): void => drawScores(chosen());
  const inputs = sixMetrics.map((metric) => {
    const input = h('input', { type: 'number', min: '0', step: '0.5', value: String(state.weights[metric]) });
    input.addEventListener('input', () => {
      state.weights[metric] = Math.max(0, Number(input.value) || 0);
      redraw();
    });
    return h('label', {}, metric, input);
  });
  const forms = [
    ['honest', 'honest'],
    ['paper', "the paper's"],
  ] as const;
  const form = choice('form', forms, state.form, (value) => {
    state.form = value as Form;
    redraw();
  });
  return h('div', { class: 'bar' }, form, h('span', { class: 'dim' }, 'weights'), ...inputs);
}

function build(): void {
  const { problems, groups, sources } = data;
  const themes = ['system', 'light', 'dark'].map((name) => [name, name] as const);
  const switcher = choice('theme', themes, theme, (name) => {
    applyTheme(name);
    recolour();
  });
  const places = groups.map(({ device, rows }, i) => [String(i), `${device} (${rows.length})`] as const);
  const devices = choice('device', places, '0', (value) => {
    state.group = Number(value);
    state.set = group().sets.length > 0 ? 0 : -1;
    drawAll();
  });
  state.set = group().sets.length > 0 ? 0 : -1;
  const roofNote =
    'Each point is one record, filled where operands were cold; only cold ones are held back by the slanted roof. Roofs are the peaks that the records themselves state.';
  const bad = problems.map(({ file, line, reason }) => h('li', {}, `${file}:${line}: ${reason}`));
  const tableSection = section('Records', filters(), table.element);
  tableSection.classList.add('long');
  const problemSection =
    bad.length === 0 ? null : section(`${bad.length} lines could not be used`, h('ul', {}, ...bad));
  problemSection?.classList.add('problems');
  replace(
    document.getElementById('report')!,
    h('header', {}, h('h1', {}, 'kernwatt report'), switcher),
    h('p', { class: 'dim' }, `From ${sources.join(', ')}.`),
    problemSection,
    groups.length > 1
      ? section('Devices', h('p', { class: 'dim' }, 'Records of different devices are never ranked together.'), devices)
      : h('p', {}, groups[0]!.device),
    section('Roofline', h('p', { class: 'dim' }, roofNote), roofBox.box),
    section(
      'Alternatives',
      h('p', { class: 'dim' }, 'Only records that do the same work should be ranked.'),
      setControls,
    ),
    h(
      'div',
      { class: 'pair' },
      section('Pareto front', frontControls, frontBox.box, frontNote),
      section('Side by side', barControls, barBox.box),
    ),
    section(
      'The six metrics: ranks and efficiency score',
      weightInputs(),
      h('div', { class: 'pair' }, radarBox.box, scoreBox),
      scoreNote,
    ),
    tableSection,
    section('Environment and what to know', facts),
    section("Where the paper's definitions slip", h('ul', {}, ...paperSlips.map((text) => h('li', {}, text)))),
  );
  drawAll();
}

applyTheme();
system.addEventListener('change', () => {
  applyTheme();
  recolour();
});
// Paper is white: what is printed is drawn for it, and drawn back afterwards.
let before = theme;
addEventListener('beforeprint', () => {
  before = theme;
  applyTheme('light');
  recolour();
});
addEventListener('afterprint', () => {
  applyTheme(before);
  recolour();
});
build();
document.documentElement.dataset.ready = 'true';
