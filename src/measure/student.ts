// Student's t for any level, and the tail of Fisher's F: tails by the continued fraction of the incomplete beta function (Lentz's
// method; Press et al., Numerical Recipes, 6.4), the quantile of t by bisection of its tail.

/** ln of the gamma function, Lanczos' series with seven terms; within 1e-14 for positive arguments. */
function logGamma(x: number): number {
  const terms = [
    676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406, 12.507343278686905,
    -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7,
  ];
  let sum = 0.9999999999998099;
  for (const [i, term] of terms.entries()) sum += term / (x + i);
  const t = x + terms.length - 1.5;
  return Math.log(Math.sqrt(2 * Math.PI)) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

/** Regularised incomplete beta function I_x(a, b) for 0 <= x <= 1. */
function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const tiny = 1e-300;
  const away = (value: number) => (Math.abs(value) < tiny ? tiny : value);
  let c = 1;
  let d = 1 / away(1 - ((a + b) * x) / (a + 1));
  let fraction = d;
  for (let m = 1; m <= 1000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away(1 + even * d);
    c = away(1 + even / c);
    fraction *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away(1 + odd * d);
    c = away(1 + odd / c);
    fraction *= d * c;
    if (Math.abs(d * c - 1) < 1e-15) break;
  }
  const front = logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x);
  return (Math.exp(front) * fraction) / a;
}

/** More degrees of freedom change no digit that anybody prints, and the series above would need more terms. */
const many = 1e6;

/** P(T > t) for Student's T with `degrees` of freedom (Infinity: the normal distribution). */
export function studentTail(t: number, degrees: number): number {
  if (t === Number.POSITIVE_INFINITY) return 0;
  if (t === Number.NEGATIVE_INFINITY) return 1;
  const v = Math.min(degrees, many);
  const half = incompleteBeta(v / (v + t * t), v / 2, 0.5) / 2;
  return t >= 0 ? half : 1 - half;
}

/** P(F > f) for Fisher's F with `a` degrees of freedom over `b`. */
export function fisherTail(f: number, a: number, b: number): number {
  return f === Number.POSITIVE_INFINITY ? 0 : incompleteBeta(b / (b + a * f), b / 2, a / 2);
}

/** The t with P(T > t) = tail, for 0 < tail <= 1/2. */
export function studentUpper(tail: number, degrees: number): number {
  let high = 1;
  while (studentTail(high, degrees) > tail) high *= 2;
  let low = 0;
  for (let i = 0; i < 100 && high - low > 1e-12 * high; i++) {
    const middle = (low + high) / 2;
    if (studentTail(middle, degrees) > tail) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}
