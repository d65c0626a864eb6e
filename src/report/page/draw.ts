// What the charting library leaves to us: axes with SI prefixes, boxes and whiskers of intervals, labels that do not overlap.
import type { Chart, ChartOptions, Plugin, Scale } from 'chart.js';
import { formatted } from '../analysis.js';
import { si } from '../format.js';
import type { Estimate } from '../pareto.js';
import type { ReportQuantity } from '../quantities.js';

/** A point of a scatter chart with what it stands for. */
export interface Mark {
  x: number;
  y: number;
  label: string;
  /** Intervals along each axis; null where there is none. */
  boxX: readonly [number, number] | null;
  boxY: readonly [number, number] | null;
}

export const ends = ({ low, high }: Estimate): readonly [number, number] | null =>
  low === null || high === null ? null : [low, high];

export const colour = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const series = (i: number): string => colour(`s${(i % 8) + 1}`);

/** Which ticks a logarithmic axis names: all of 1, 2, 5 where a decade has room for three, powers of ten elsewhere. */
function named(value: number, { width, height, min, max, axis: way }: Scale): boolean {
  const mantissa = Number((value / 10 ** Math.floor(Math.log10(value) + 1e-9)).toPrecision(3));
  const decade = (way === 'x' ? width / 4 : height) / Math.log10(max / min);
  return (decade > 60 ? [1, 2, 5] : [1]).includes(mantissa);
}

/** What the charts set on a scale; the library's own type asks for everything at once. */
export interface Axis {
  type: 'linear' | 'logarithmic';
  min: number;
  max: number;
  title: { display: boolean; text: string; color: string };
  grid: { color: string };
  ticks: {
    color: string;
    maxRotation: number;
    includeBounds: boolean;
    autoSkip: boolean;
    stepSize?: number;
    callback(this: Scale, value: number | string): string;
  };
}

/** An axis for these values: logarithmic where they span more than a factor of 8, with room at both ends. */
export function axis(quantity: ReportQuantity, values: readonly number[]): Axis {
  const positive = values.filter((value) => value > 0);
  let low = positive.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  let high = positive.reduce((a, b) => Math.max(a, b), 0);
  if (high === 0) [low, high] = [0.1, 1];
  const log = high / low > 8;
  const pad = log ? (high / low) ** 0.06 : 0;
  const room = (high - low || high) * 0.12;
  let min = log ? low / pad : Math.max(0, low - room);
  let max = log ? high * pad : high + room;
  const short = (value: number): string => {
    const text = log && quantity.unit === 'B' ? si(value, 'B') : formatted(quantity, Number(value.toPrecision(3)));
    return text.replace(/(\.\d*?)0+(?= |$|e)/, '$1').replace(/\.(?= |$|e)/, '');
  };
  // Memory is told in powers of two, so its linear steps are; a logarithmic axis has powers of ten.
  const stepSize = 2 ** Math.round(Math.log2((max - min) / 6));
  const binary = !log && quantity.unit === 'B';
  if (binary) [min, max] = [stepSize * Math.floor(min / stepSize), stepSize * Math.ceil(max / stepSize)];
  return {
    type: log ? 'logarithmic' : 'linear',
    min,
    max,
    title: { display: true, text: titled(quantity), color: colour('ink') },
    grid: { color: colour('line') },
    ticks: {
      color: colour('dim'),
      maxRotation: 0,
      includeBounds: false,
      autoSkip: !log,
      ...(binary && { stepSize }),
      callback(value) {
        return !log || named(Number(value), this) ? short(Number(value)) : '';
      },
    },
  };
}

export const titled = ({ label, better }: ReportQuantity): string =>
  better === null ? label : `${label} (${better} is better)`;

/** Draws the interval of each mark: a box where both axes have one, else a whisker. Only where they can be told apart. */
export const intervals: Plugin<'scatter'> = {
  id: 'intervals',
  beforeDatasetsDraw(chart) {
    const { ctx, chartArea: area, scales } = chart;
    const x = scales.x!;
    const y = scales.y!;
    ctx.save();
    ctx.beginPath();
    ctx.rect(area.left, area.top, area.width, area.height);
    ctx.clip();
    for (const [i, dataset] of chart.data.datasets.entries()) {
      if (!chart.isDatasetVisible(i) || dataset.data.length > 400) continue;
      const stroke = String(dataset.borderColor);
      ctx.strokeStyle = stroke;
      ctx.fillStyle = stroke;
      for (const mark of dataset.data as unknown as Mark[]) {
        const [left, right] = (mark.boxX ?? [mark.x, mark.x]).map((value) =>
          x.getPixelForValue(Math.max(value, x.min)),
        );
        const [bottom, top] = (mark.boxY ?? [mark.y, mark.y]).map((value) =>
          y.getPixelForValue(Math.max(value, y.min)),
        );
        if (![left, right, bottom, top].every(Number.isFinite)) continue;
        ctx.globalAlpha = 0.14;
        ctx.fillRect(left!, top!, right! - left!, bottom! - top!);
        ctx.globalAlpha = 0.7;
        ctx.strokeRect(left!, top!, right! - left!, bottom! - top!);
      }
    }
    ctx.restore();
  },
};

/** Writes names beside up to 14 points, each where it covers nothing yet; what finds no room is left to the tooltip. */
export const pointLabels: Plugin<'scatter'> = {
  id: 'pointLabels',
  afterDatasetsDraw(chart) {
    const marks = chart.data.datasets.flatMap((dataset, d) =>
      chart.isDatasetVisible(d)
        ? (dataset.data as unknown as Mark[]).map((mark, i) => ({ mark, at: chart.getDatasetMeta(d).data[i]! }))
        : [],
    );
    const shown = marks.filter(({ mark, at }) => mark.label && at);
    if (shown.length > 14) return;
    const { ctx, chartArea: area } = chart;
    ctx.save();
    ctx.font = '11px system-ui, sans-serif';
    ctx.fillStyle = colour('ink');
    ctx.textBaseline = 'middle';
    const taken = shown.map(({ at }) => [at.x - 5, at.y - 5, at.x + 5, at.y + 5] as const);
    for (const { mark, at } of shown) {
      const width = ctx.measureText(mark.label).width;
      const beside = [
        [at.x + 8, at.y],
        [at.x - 8 - width, at.y],
      ] as const;
      const apart = [
        [at.x - width / 2, at.y - 13],
        [at.x - width / 2, at.y + 13],
        [at.x + 8, at.y - 13],
        [at.x - 8 - width, at.y + 13],
      ] as const;
      // A whisker runs sideways from the point; its name stands above or below it.
      const places = mark.boxX && mark.boxX[0] < mark.boxX[1] ? [...apart, ...beside] : [...beside, ...apart];
      for (const [left, middle] of places) {
        const box = [left, middle - 7, left + width, middle + 7] as const;
        const inside = box[0] >= area.left && box[2] <= area.right && box[1] >= area.top && box[3] <= area.bottom;
        if (!inside || taken.some((b) => b[0] < box[2] && box[0] < b[2] && b[1] < box[3] && box[1] < b[3])) continue;
        ctx.fillText(mark.label, left, middle);
        taken.push(box);
        break;
      }
    }
    ctx.restore();
  },
};

/** Whiskers on horizontal bars. */
export const whiskers = (estimates: readonly Estimate[]): Plugin<'bar'> => ({
  id: 'whiskers',
  afterDatasetsDraw(chart: Chart) {
    const { ctx } = chart;
    const x = chart.scales.x!;
    ctx.save();
    ctx.strokeStyle = colour('ink');
    ctx.lineWidth = 1.2;
    for (const [i, bar] of chart.getDatasetMeta(0).data.entries()) {
      const range = estimates[i] && ends(estimates[i]);
      if (!range || range[0] === range[1]) continue;
      const [left, right] = range.map((value) => x.getPixelForValue(value)) as [number, number];
      ctx.beginPath();
      ctx.moveTo(left, bar.y);
      ctx.lineTo(right, bar.y);
      for (const at of [left, right]) {
        ctx.moveTo(at, bar.y - 4);
        ctx.lineTo(at, bar.y + 4);
      }
      ctx.stroke();
    }
    ctx.restore();
  },
});

/** Options that all charts share. */
export const common = (): ChartOptions<'scatter'> & ChartOptions<'bar'> & ChartOptions<'radar'> =>
  ({
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    color: colour('ink'),
    plugins: {
      legend: {
        position: 'bottom',
        labels: { color: colour('ink'), boxWidth: 8, boxHeight: 8, padding: 12, usePointStyle: true },
      },
    },
  }) as ChartOptions<'scatter'> & ChartOptions<'bar'> & ChartOptions<'radar'>;
