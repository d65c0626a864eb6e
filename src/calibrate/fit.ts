// What an operation, a byte and a second cost: power of loads of known rates, as constant + sum of cost * rate, by least squares
// with an interval for each cost. Arithmetic only; taking the windows is calibrate.ts.
import { known, type Missing, missing, type Quantity } from '../measure/quantity.js';
import { mean } from '../measure/stats.js';
import { fisherTail, studentUpper } from '../measure/student.js';

/** One window of one load. */
export interface CostWindow {
  /** Windows of one load, at one intensity, replicate each other. */
  load: string;
  watts: number;
  /** Per second, by what it is that costs: operations of a kind, bytes. */
  rates: Readonly<Record<string, number>>;
}

export interface CostFit {
  /** Joules for each thing that has a rate. */
  costs: Record<string, Quantity>;
  /** Drawn whatever the device does, watts. */
  constantW: Quantity;
  /** Root mean square of what the line leaves over, as a share of the power. */
  residual: number | null;
  /** Whether loads stand off the line by more than their windows scatter (level 1 %); null where that cannot be told. */
  misfit: boolean | null;
  /** Degrees of freedom of the intervals. */
  degrees: number;
  windows: number;
  loads: number;
}

/** Above this variance inflation two things always rose and fell together, and no interval says what each costs. */
const mostInflation = 1e4;
const misfitLevel = 0.01;

/**
 * Fits the costs. Deviations count as shares of a load's power, because sensors and the model err by shares. A cost below zero, or
 * one that cannot be told apart from the others, is missing with the reason; nothing is clamped.
 */
export function fitCosts(windows: readonly CostWindow[], units: Readonly<Record<string, string>>): CostFit {
  const names = Object.keys(units);
  const groups = new Map<string, CostWindow[]>();
  for (const window of windows) groups.set(window.load, [...(groups.get(window.load) ?? []), window]);
  const shape = { windows: windows.length, loads: groups.size };
  const used = names.filter((name) => windows.some(({ rates }) => (rates[name] ?? 0) > 0));
  const nothing = (reason: string): CostFit => ({
    costs: Object.fromEntries(names.map((name) => [name, missing(`J/${units[name]}`, reason)])),
    constantW: missing('W', reason),
    residual: null,
    misfit: null,
    degrees: 0,
    ...shape,
  });
  if (groups.size < used.length + 1)
    return nothing(`${groups.size} loads were metered, expected at least ${used.length + 1} for as many costs`);
  const scale = new Map([...groups].map(([load, all]) => [load, mean(all.map(({ watts }) => watts))]));
  if ([...scale.values()].some((watts) => !(watts > 0))) return nothing('a load drew no power, so the meter is wrong');

  // Columns in units of their largest entry, so that joules per operation and watts are numbers of one size.
  const largest = used.map((name) => Math.max(...windows.map(({ rates }) => rates[name] ?? 0)));
  const rows = windows.map(({ load, rates }) =>
    [1, ...used.map((name, i) => (rates[name] ?? 0) / largest[i]!)].map((x) => x / scale.get(load)!),
  );
  const y = windows.map(({ load, watts }) => watts / scale.get(load)!);
  const { solution, variance, inflation } = leastSquares(rows, y);
  const left = rows.map((row, i) => y[i]! - row.reduce((sum, x, j) => sum + x * solution[j]!, 0));
  const error = errorOf(windows, left, solution.length);

  const cost = (j: number, unit: string, per: number, what: string): Quantity => {
    if (inflation[j]! > mostInflation)
      return missing(unit, `${what} rose and fell with another in every load, so its cost cannot be told apart`);
    const value = solution[j]! / per;
    if (value < 0) return missing(unit, negative(what, value, unit, error.misfit));
    const half = error.half === null ? null : (error.half * Math.sqrt(variance[j]!)) / per;
    const basis = `least squares over ${windows.length} windows of ${groups.size} loads`;
    return known(value, unit, basis, half === null ? null : [value - half, value + half]);
  };
  const costs = names.map((name): [string, Quantity] => {
    const j = used.indexOf(name);
    const unit = `J/${units[name]}`;
    return [name, j < 0 ? noLoad(unit, name) : cost(j + 1, unit, largest[j]!, name)];
  });
  return {
    costs: Object.fromEntries(costs),
    constantW: cost(0, 'W', 1, 'constant power'),
    residual: Math.sqrt(mean(left.map((r) => r * r))),
    misfit: error.misfit,
    degrees: error.degrees,
    ...shape,
  };
}

const noLoad = (unit: string, name: string): Missing => missing(unit, `no load of ${name} was metered`);

const negative = (what: string, value: number, unit: string, misfit: boolean | null): string =>
  `least squares gives ${value.toPrecision(3)} ${unit} for ${what}: ${
    misfit ? 'the loads do not follow a constant and a cost for each operation and byte' : 'it is lost in the noise'
  }`;

interface ErrorEstimate {
  /** Half width of the interval of a coefficient of unit variance; null without degrees of freedom. */
  half: number | null;
  degrees: number;
  misfit: boolean | null;
}

/**
 * What the windows of one load differ by is noise; what loads stand off the line by, beyond that, is the model's. Where that is
 * significant it alone decides: more windows of the same loads would not make it smaller.
 */
function errorOf(windows: readonly CostWindow[], left: readonly number[], parameters: number): ErrorEstimate {
  const groups = new Map<string, number[]>();
  for (const [i, { load }] of windows.entries()) groups.set(load, [...(groups.get(load) ?? []), left[i]!]);
  let pure = 0;
  let lack = 0;
  for (const residuals of groups.values()) {
    const center = mean(residuals);
    lack += residuals.length * center * center;
    for (const r of residuals) pure += (r - center) ** 2;
  }
  const pureDegrees = windows.length - groups.size;
  const lackDegrees = groups.size - parameters;
  const half = (square: number, degrees: number): ErrorEstimate['half'] =>
    degrees < 1 ? null : studentUpper(0.025, degrees) * Math.sqrt(square / degrees);
  if (pureDegrees < 1 || lackDegrees < 1) {
    const degrees = pureDegrees + lackDegrees;
    return { half: half(pure + lack, degrees), degrees, misfit: null };
  }
  const ratio = lack / lackDegrees / (pure / pureDegrees);
  const misfit = fisherTail(ratio, lackDegrees, pureDegrees) < misfitLevel;
  return misfit
    ? { half: half(lack, lackDegrees), degrees: lackDegrees, misfit }
    : { half: half(pure + lack, pureDegrees + lackDegrees), degrees: pureDegrees + lackDegrees, misfit };
}

/** Solution, variance of each coefficient for errors of variance 1, and by how much the other columns inflate that. */
function leastSquares(rows: readonly (readonly number[])[], y: readonly number[]) {
  const n = rows[0]!.length;
  const dot = (j: number, k: number) => rows.reduce((sum, row) => sum + row[j]! * row[k]!, 0);
  const norm = Array.from({ length: n }, (_, j) => Math.sqrt(dot(j, j)));
  // So small a ridge changes no digit that matters; columns that depend on each other then show as huge inflation.
  const gram = norm.map((a, j) => norm.map((b, k) => dot(j, k) / (a * b) + (j === k ? 1e-12 : 0)));
  const inverse = inverted(gram);
  const right = norm.map((a, j) => rows.reduce((sum, row, i) => sum + row[j]! * y[i]!, 0) / a);
  return {
    solution: inverse.map((row, j) => row.reduce((sum, x, k) => sum + x * right[k]!, 0) / norm[j]!),
    variance: inverse.map((row, j) => row[j]! / norm[j]! ** 2),
    inflation: inverse.map((row, j) => row[j]!),
  };
}

/** The inverse of a small symmetric positive definite matrix, by Gauss and Jordan with pivots. */
function inverted(matrix: readonly (readonly number[])[]): number[][] {
  const n = matrix.length;
  const a = matrix.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1 : 0))]);
  for (let column = 0; column < n; column++) {
    let pivot = column;
    for (let i = column + 1; i < n; i++) if (Math.abs(a[i]![column]!) > Math.abs(a[pivot]![column]!)) pivot = i;
    [a[column], a[pivot]] = [a[pivot]!, a[column]!];
    const factor = a[column]![column]!;
    a[column] = a[column]!.map((x) => x / factor);
    for (let i = 0; i < n; i++) {
      const times = a[i]![column]!;
      if (i !== column) a[i] = a[i]!.map((x, j) => x - times * a[column]![j]!);
    }
  }
  return a.map((row) => row.slice(n));
}
