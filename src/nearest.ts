// "Did you mean": the closest of several names.

/** The name within two edits (three for long words) of `given`, or undefined. */
export function nearest(given: string, names: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = given.length > 6 ? 3 : 2;
  for (const name of names) {
    const d = distance(given.toLowerCase(), name.toLowerCase());
    if (d > least || (d === least && best !== undefined) || d >= name.length) continue;
    least = d;
    best = name;
  }
  return best;
}

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; ++i) {
    const next = [i];
    for (let j = 1; j <= b.length; ++j)
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}
