// The four charts. Each gets a canvas and rows, and returns a chart that is destroyed and drawn anew when anything changes.
import {
  BarController,
  BarElement,
  CategoryScale,
  Chart,
  type ChartDataset,
  Filler,
  Legend,
  LinearScale,
  LineElement,
  LogarithmicScale,
  PointElement,
  RadarController,
  RadialLinearScale,
  ScatterController,
  Tooltip,
} from 'chart.js';
import { definition, estimate, formatted, labels, type Scoring, shown } from '../analysis.js';
import type { PageRow, Roof } from '../model.js';
import type { Estimate } from '../pareto.js';
import { axis, colour, common, ends, intervals, type Mark, pointLabels, series, titled, whiskers } from './draw.js';

Chart.register(
  ...[BarController, BarElement, CategoryScale, Filler, Legend, LinearScale, LineElement, LogarithmicScale],
  ...[PointElement, RadarController, RadialLinearScale, ScatterController, Tooltip],
);

const pointStyles: Record<string, 'circle' | 'rectRot' | 'triangle' | 'rect'> = {
  cold: 'circle',
  hot: 'rectRot',
  warm: 'triangle',
};

const marksOf = (rows: readonly PageRow[], names: readonly string[], xKey: string, yKey: string): Mark[] =>
  rows.flatMap((row, i) => {
    const x = estimate(row, xKey);
    const y = estimate(row, yKey);
    return x && y ? [{ x: x.value, y: y.value, label: names[i]!, boxX: ends(x), boxY: ends(y) }] : [];
  });

const scatter = (data: readonly Mark[], more: Partial<ChartDataset<'scatter'>>): ChartDataset<'scatter'> =>
  ({
    data,
    pointRadius: data.length > 400 ? 2 : 4,
    pointHoverRadius: 6,
    ...more,
  }) as unknown as ChartDataset<'scatter'>;

/** What hovering over a point says: its name and both numbers. */
const tooltip = (xKey: string, yKey: string) => ({
  filter: ({ raw }: { raw: unknown }) => (raw as Mark).label !== '',
  callbacks: {
    label: ({ raw }: { raw: unknown }) => {
      const mark = raw as Mark;
      const number = (key: string, value: number) => `${definition(key).label} ${formatted(definition(key), value)}`;
      return [mark.label, number(xKey, mark.x), number(yKey, mark.y)];
    },
  },
});

/** Arithmetic intensity against achieved FLOP/s, under the roofs that the records' own peaks make. */
export function roofline(canvas: HTMLCanvasElement, rows: readonly PageRow[], roofs: readonly Roof[]): Chart | null {
  const [xKey, yKey] = ['intensity_flop_per_b', 'flops_per_s'];
  const names = rows.map(({ name, types, cache }) => `${name}, ${types}, ${cache}`);
  const all = marksOf(rows, names, xKey, yKey);
  if (all.length === 0) return null;
  const arithmetic = roofs.filter(({ kind }) => kind === 'flops');
  const memory = roofs.filter(({ kind }) => kind === 'bandwidth');
  const highest = arithmetic.reduce((most, { value }) => Math.max(most, value), 0);
  const ridges = memory.map(({ value }) => highest / value).filter((ridge) => ridge > 0);
  const x = axis(definition(xKey), [
    ...all.map((mark) => mark.x),
    ...ridges.flatMap((ridge) => [ridge / 2, ridge * 4]),
  ]);
  const y = axis(definition(yKey), [...all.map((mark) => mark.y), ...arithmetic.map(({ value }) => value * 1.3)]);
  const [left, right] = [x.min, x.max];
  const line = (roof: Roof, i: number): ChartDataset<'scatter'> => {
    const { kind, name, value, source, unit } = roof;
    const label = `${name} ${formatted({ ...definition(yKey), unit }, value)} (${source})`;
    const steepest = highest > 0 ? Math.min(right, highest / value) : right;
    const best = memory.reduce((most, one) => Math.max(most, one.value), 0);
    const from = kind === 'flops' ? Math.max(left, best > 0 ? value / best : left) : left;
    const points =
      kind === 'flops'
        ? [
            [from, value],
            [right, value],
          ]
        : [
            [left, left * value],
            [steepest, steepest * value],
          ];
    const data = points.map(([px, py]): Mark => ({ x: px!, y: py!, label: '', boxX: null, boxY: null }));
    const dash = kind === 'flops' ? [] : [6, 4];
    const shade = colour(i % 2 === 0 ? 'ink' : 'dim');
    return scatter(data, {
      label,
      showLine: true,
      pointRadius: 0,
      pointHitRadius: 0,
      borderColor: shade,
      backgroundColor: shade,
      borderWidth: 1.6,
      borderDash: dash,
      pointStyle: 'line',
    });
  };
  const groups = new Map<string, number[]>();
  for (const [i, { op, cache }] of rows.entries()) {
    const key = `${op ?? 'function'}, ${cache}`;
    groups.set(key, [...(groups.get(key) ?? []), i]);
  }
  const ops = [...new Set(rows.map(({ op }) => op))];
  const points = [...groups].map(([label, members]) => {
    const { op, cache } = rows[members[0]!]!;
    const shade = series(ops.indexOf(op));
    const own = members.map((i) => rows[i]!);
    const data = marksOf(
      own,
      members.map((i) => names[i]!),
      xKey,
      yKey,
    );
    const look = { borderColor: shade, backgroundColor: cache === 'cold' ? shade : 'transparent' };
    return scatter(data, { label, ...look, pointStyle: pointStyles[cache] ?? 'rect' });
  });
  return new Chart(canvas, {
    type: 'scatter',
    data: { datasets: [...points, ...roofs.map(line)] },
    options: {
      ...common(),
      scales: { x, y },
      plugins: { ...common().plugins, tooltip: tooltip(xKey, yKey) },
    } as never,
    plugins: [intervals],
  }) as Chart;
}

/** Two axes of a front: who is on it, who is beaten, each with the box of its intervals. */
export function pareto(
  canvas: HTMLCanvasElement,
  rows: readonly PageRow[],
  beatenBy: readonly (number | null)[],
  xKey: string,
  yKey: string,
): Chart | null {
  const names = labels(rows);
  const pick = (on: boolean): Mark[] => {
    const chosen = rows.map((_, i) => i).filter((i) => (beatenBy[i] === null) === on);
    return marksOf(
      chosen.map((i) => rows[i]!),
      chosen.map((i) => names[i]!),
      xKey,
      yKey,
    );
  };
  const [on, off] = [pick(true), pick(false)];
  const all = [...on, ...off];
  if (all.length === 0) return null;
  const spread = (of: 'x' | 'y', box: 'boxX' | 'boxY') => all.flatMap((mark) => [mark[of], ...(mark[box] ?? [])]);
  return new Chart(canvas, {
    type: 'scatter',
    data: {
      datasets: [
        scatter(on, { label: 'on the front', borderColor: colour('s1'), backgroundColor: colour('s1') }),
        scatter(off, {
          label: 'beaten',
          borderColor: colour('s2'),
          backgroundColor: 'transparent',
          pointStyle: 'crossRot',
          pointBorderWidth: 2,
        }),
      ],
    },
    options: {
      ...common(),
      scales: { x: axis(definition(xKey), spread('x', 'boxX')), y: axis(definition(yKey), spread('y', 'boxY')) },
      plugins: { ...common().plugins, tooltip: tooltip(xKey, yKey) },
    } as never,
    plugins: [intervals, pointLabels],
  }) as Chart;
}

const cut = (text: string, length: number): string => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

/** One quantity of every row as bars from zero with their intervals, the best first. */
export function bars(canvas: HTMLCanvasElement, rows: readonly PageRow[], key: string, most: number): Chart | null {
  const quantity = definition(key);
  const names = labels(rows);
  const found = rows.flatMap((row, i) => {
    const number = estimate(row, key);
    return number ? [{ row, number, name: names[i]! }] : [];
  });
  if (found.length === 0) return null;
  const sign = quantity.better === 'higher' ? -1 : 1;
  found.sort((a, b) => sign * (a.number.value - b.number.value));
  const drawn = found.slice(0, most);
  const numbers: Estimate[] = drawn.map(({ number }) => number);
  const room = canvas.parentElement!.clientWidth < 480 ? 22 : 44;
  const high = numbers.reduce((top, { value, high: end }) => Math.max(top, value, end ?? 0), 0);
  const { ticks } = axis(quantity, [high / 2, high]);
  return new Chart(canvas, {
    type: 'bar',
    data: {
      labels: drawn.map(({ name }) => cut(name, room)),
      datasets: [{ data: numbers.map(({ value }) => value), backgroundColor: series(0), barPercentage: 0.72 }],
    },
    options: {
      ...common(),
      indexAxis: 'y',
      scales: {
        x: {
          min: 0,
          max: high * 1.04 || 1,
          title: { display: true, text: titled(quantity), color: colour('ink') },
          grid: { color: colour('line') },
          ticks: { ...ticks, maxTicksLimit: canvas.parentElement!.clientWidth < 480 ? 4 : 8, includeBounds: false },
        },
        y: { grid: { display: false }, ticks: { color: colour('ink'), autoSkip: false, font: { size: 11 } } },
      },
      plugins: {
        legend: { display: false },
        tooltip: {
          callbacks: {
            title: ([item]: { dataIndex: number }[]) => drawn[item!.dataIndex]!.name,
            label: ({ dataIndex }: { dataIndex: number }) => shown(drawn[dataIndex]!.row, key),
          },
        },
      },
    } as never,
    plugins: [whiskers(numbers)],
  }) as Chart;
}

/** Normalised metrics of the first members, 1 outside and best. */
export function radar(
  canvas: HTMLCanvasElement,
  names: readonly string[],
  { metrics, members }: Scoring,
): Chart | null {
  if (metrics.length < 3 || members.length === 0) return null;
  return new Chart(canvas, {
    type: 'radar',
    data: {
      labels: [...metrics],
      datasets: members.map(({ normalised }, i) => ({
        label: cut(names[i]!, 40),
        data: normalised,
        borderColor: series(i),
        backgroundColor: `color-mix(in srgb, ${series(i)} 12%, transparent)`,
        pointBackgroundColor: series(i),
        borderWidth: 2,
        borderDash: i % 2 === 0 ? [] : [5, 4],
      })),
    },
    options: {
      ...common(),
      scales: {
        r: {
          min: 0,
          max: 1,
          grid: { color: colour('line') },
          angleLines: { color: colour('line') },
          pointLabels: { color: colour('ink'), font: { size: 13 } },
          ticks: { color: colour('dim'), backdropColor: 'transparent', stepSize: 0.2 },
        },
      },
    } as never,
  }) as Chart;
}
