// How many pairs of a query and a key `causal` and the window of attention leave visible, in closed form.

interface Lengths {
  lenQ: number;
  lenKv: number;
}

export interface Bounds {
  causal: boolean;
  windowLeft: number;
  windowRight: number;
}

/** Keys after a query's place that it may see. */
const ahead = ({ causal, windowRight }: Bounds): number =>
  causal ? 0 : windowRight < 0 ? Number.POSITIVE_INFINITY : windowRight;
const behind = ({ windowLeft }: Bounds): number => (windowLeft < 0 ? Number.POSITIVE_INFINITY : windowLeft);

const clamp = (value: number, high: number): number => Math.min(Math.max(value, 0), high);

/** Sum over i from 0 to count - 1 of i + start clamped to 0 .. high. */
function sumClamped(count: number, start: number, high: number): number {
  if (start === Number.POSITIVE_INFINITY) return count * high;
  if (start === Number.NEGATIVE_INFINITY) return 0;
  const first = clamp(-start, count);
  const last = clamp(high - start, count);
  const rising = Math.max(0, last - first);
  return rising * (start + (first + last - 1) / 2) + (count - Math.max(first, last)) * high;
}

/** Pairs (i, j) with p - left <= j <= p + right, where p = i + lenKv - lenQ. */
export function visiblePairs({ lenQ, lenKv }: Lengths, bounds: Bounds): number {
  const shift = lenKv - lenQ;
  const ends = sumClamped(lenQ, shift + ahead(bounds) + 1, lenKv);
  return ends - sumClamped(lenQ, shift - behind(bounds), lenKv);
}

/** The share of the keys that some query sees. */
export function keysRead({ lenQ, lenKv }: Lengths, bounds: Bounds): number {
  if (lenQ === 0 || lenKv === 0) return 0;
  const first = clamp(lenKv - lenQ - behind(bounds), lenKv);
  const end = clamp(lenKv + ahead(bounds), lenKv);
  return (end - first) / lenKv;
}
