// Figures about GPUs in prose: a sentence or a row of a table that names a GPU and gives a speed, time, energy, share or ratio
// must say that this is a prediction, an estimate or a specification, or point at the ledger with
//
//   <!-- ledger: KERNEL | METRIC -->      METRIC: time, flops, bandwidth, or ratio (time over the peer's; x or %)
//
// in the same sentence or row, where a measurement of that kernel in bench/results/<gpu>/ledger.json then holds each figure, as
// far as its digits go. tools/lint.mjs applies it to README.md, CHANGELOG.md, CONTRIBUTING.md and docs/*.md.

const gpu =
  /\b(?:GH200|GB[23]00|[HAB][123]00|H20|A10G?|A16|A30|A40|L4|L40S?|T4|V100|RTX(?:\s?\w*\d{4}\w*)?|GeForce|Quadro|Hopper|Blackwell|Ampere|Ada Lovelace|GPUs?)\b/;
const labelled = /\b(?:predict\w*|estimat\w*|specifi(?:ed|cation|cations)|data ?sheet|nominal(?:ly)?)\b/i;
const reference = /<!--\s*ledger:\s*(.+?)\s*\|\s*(\w+)\s*-->/g;

/** What a unit measures and how much of the SI unit it is. A bare ratio has factor 1. */
const units = {
  'TFLOP/s': ['flops', 1e12],
  'GFLOP/s': ['flops', 1e9],
  'PFLOP/s': ['flops', 1e15],
  'TB/s': ['bandwidth', 1e12],
  'GB/s': ['bandwidth', 1e9],
  'MB/s': ['bandwidth', 1e6],
  ms: ['time', 1e-3],
  µs: ['time', 1e-6],
  μs: ['time', 1e-6],
  us: ['time', 1e-6],
  ns: ['time', 1e-9],
  J: ['energy', 1],
  mJ: ['energy', 1e-3],
  W: ['power', 1],
  '%': ['ratio', 0.01],
  x: ['ratio', 1],
  '×': ['ratio', 1],
};
// A range ("330-370 TFLOP/s") is two figures with one unit; "±1.5 %" is the width of an interval, not a figure.
const figure = new RegExp(
  `(?<![\\w.±])(?:(\\d[\\d,]*(?:\\.\\d+)?)\\s?(?:-|–|to|and|or)\\s?)?(\\d[\\d,]*(?:\\.\\d+)?)[ \\u00a0]?(${Object.keys(
    units,
  )
    .sort((a, b) => b.length - a.length)
    .map((unit) => unit.replace('/', '\\/'))
    .join('|')})(?![\\w/])`,
  'g',
);

/** Sentences of paragraphs, rows of tables, lines of code: { line: of its beginning, text }. */
function statements(markdown) {
  const found = [];
  let paragraph = [];
  let code = false;
  const flush = () => {
    if (paragraph.length === 0) return;
    const comments = [];
    const joined = paragraph
      .map(({ text }) => text)
      .join('\n')
      .replace(/<!--.*?-->/g, (comment) => `⟦${comments.push(comment) - 1}⟧`);
    let at = 0;
    // A comment that follows the full stop belongs to the sentence before it.
    for (const sentence of joined.split(/(?<=[.!?](?:\s*⟦\d+⟧)*)\s+(?=[^\sa-z⟦])/)) {
      const start = joined.indexOf(sentence, at);
      at = start + sentence.length;
      const line = paragraph[0].line + joined.slice(0, start).split('\n').length - 1;
      const text = sentence.replace(/\s*\n\s*/g, ' ').replace(/⟦(\d+)⟧/g, (_, i) => comments[i]);
      found.push({ line, text });
    }
    paragraph = [];
  };
  markdown.split('\n').forEach((raw, i) => {
    const text = raw.trim();
    const fence = /^(```|~~~)/.test(text);
    if (fence) code = !code;
    if (fence || text === '' || code || /^(\||#)/.test(text)) {
      flush();
      if (!fence && text !== '') found.push({ line: i + 1, text });
      return;
    }
    if (/^([-*+]|\d+\.)\s/.test(text)) flush();
    paragraph.push({ line: i + 1, text });
  });
  flush();
  return found;
}

/** Whether `value`, rounded to the digits of `written`, is what was written. */
function agrees(written, factor, value) {
  const digits = written.replaceAll(',', '');
  const decimals = digits.split('.')[1]?.length ?? 0;
  // Trailing zeros of a whole number may be rounding too ("1,300 GB/s"), as far as two significant digits.
  const zeros = decimals ? 0 : Math.min(/0*$/.exec(digits)[0].length, Math.max(digits.length - 2, 0));
  const step = 10 ** (zeros - decimals);
  return Math.abs(value / factor - Number(digits)) <= step / 2 + 1e-9 * Math.abs(Number(digits));
}

/** Values of a kernel's measurements for a metric; null when no ledger has the kernel. */
function values(ledgers, name, metric) {
  const entries = ledgers
    .flatMap(({ ledger }) => ledger.kernels)
    .filter((k) => k.name === name || `${k.name} ${k.arch}` === name);
  if (entries.length === 0) return null;
  const all = entries.flatMap((entry) => entry.measured);
  return metric === 'ratio'
    ? all.filter((m) => m.ratio !== null).map((m) => m.ratio)
    : all.filter((m) => m.metric === metric).map((m) => m.value);
}

/** What breaks the rule in a file: sentences with its name and line. `ledgers` as readLedgers() gives them. */
export function figureProblems(file, markdown, ledgers) {
  const broken = [];
  for (const { line, text } of statements(markdown)) {
    const prose = text.replace(/<!--.*?-->/g, ' ');
    // "2 x 64" is a size, "2x" a ratio.
    const figures = [...prose.matchAll(figure)]
      .filter(([whole]) => !/\s[x×]$/.test(whole))
      .flatMap(([whole, low, high, unit]) => [low, high].filter(Boolean).map((written) => ({ whole, written, unit })));
    const references = [...text.matchAll(reference)].map(([, name, metric]) => ({ name, metric }));
    const say = (what) => broken.push(`${file}:${line}: ${what}`);
    for (const { name, metric } of references)
      if (values(ledgers, name, metric) === null)
        say(`the ledger has no kernel ${name}, named by <!-- ledger: ... -->`);
    if (figures.length === 0 || labelled.test(prose)) continue;
    if (references.length === 0) {
      if (gpu.test(prose))
        say(
          `"${figures[0].whole}" is said of a GPU; mark it as predicted, estimated or specified, or add <!-- ledger: KERNEL | METRIC -->`,
        );
      continue;
    }
    for (const { written, unit, whole } of figures) {
      const [metric, factor] = units[unit];
      const held = references
        .filter((r) => r.metric === metric)
        .flatMap((r) => values(ledgers, r.name, r.metric) ?? []);
      if (!held.some((value) => agrees(written, factor, value)))
        say(
          `"${whole}" is not what the ledger holds (${metric}: ${held.length ? held.map((v) => (v / factor).toPrecision(4)).join(', ') : 'nothing'})`,
        );
    }
  }
  return broken;
}
