// Reads PTX as nvcc writes it and tells kernels apart by what they compute: the identity of a kernel is the sha256 of its own
// text with every function, variable and constant it mentions, directly or through others, without line information, comments
// and the names that the compiler invents anew at each compilation or numbers by position in the file.
import { createHash } from 'node:crypto';

/** Comments go, spaces and empty lines too, strings stay; debug information goes by line. */
function lines(text) {
  return text
    .replace(/"(?:[^"\\]|\\.)*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (found) => (found[0] === '"' ? found : ''))
    .split('\n')
    .map((line) => line.trim().replace(/\s+/g, ' '))
    .filter(
      (line) => line && !/^\.(loc|file)\b/.test(line) && !/^\$L__(tmp|func_|info_string|section)\w*:$/.test(line),
    );
}

/**
 * The top level of a file: { header: lines of .version, .target, .address_size and .pragma, items: by name
 * { name, entry: is a kernel, text: its declarations and its definition } }. Debug sections are dropped.
 */
function parsePtx(text) {
  const header = [];
  const items = new Map();
  let open = [];
  let depth = 0;
  for (const line of lines(text)) {
    if (open.length === 0 && /^\.(version|target|address_size|pragma)\b/.test(line)) {
      header.push(line);
      continue;
    }
    open.push(line);
    const code = line.replace(/"(?:[^"\\]|\\.)*"/g, '');
    const deeper = (code.match(/\{/g) ?? []).length;
    depth += deeper - (code.match(/\}/g) ?? []).length;
    if (depth < 0) throw new Error(`PTX: a closing brace without its opening one: ${line}`);
    const section = /^\.section\b/.test(open[0]);
    const body = !section && /(^|\s)\.(entry|func)\b/.test(open[0]);
    const ended = depth === 0 && (/;$/.test(code) || ((body || section) && /\}$/.test(code)));
    if (!ended) continue;
    if (!section) add(items, open.join('\n'));
    open = [];
  }
  if (open.length) throw new Error(`PTX: the file ends within "${open[0].slice(0, 80)}"`);
  if (!header.some((line) => line.startsWith('.target'))) throw new Error('PTX: no .target');
  return { header, items };
}

/** A function is named before its parameters, a variable before its size or value. */
function nameOf(text) {
  const head = text.replace(/"(?:[^"\\]|\\.)*"/g, '');
  const found = /\.(?:entry|func)\b/.test(head.split('{')[0])
    ? /\.(?:entry|func)\s*(?:\([^)]*\)\s*)?([\w$%]+)/.exec(head)
    : /([\w$%]+)\s*(?:\[[^\]]*\]\s*)*(?:=|;|,|$)/.exec(head);
  if (!found) throw new Error(`PTX: no name in "${text.slice(0, 120)}"`);
  return found[1];
}

function add(items, text) {
  const name = nameOf(text);
  const entry = /^(?:\.(?:visible|weak|extern|common)\s+)*\.entry\b/.test(text);
  const known = items.get(name);
  if (known) known.text += `\n${text}`;
  else items.set(name, { name, entry, text });
}

const identifier = /[A-Za-z_$%][\w$]*/g;

/** What belongs to a kernel, in the order in which it is first mentioned. */
function closure(items, kernel) {
  const found = new Map([[kernel.name, kernel]]);
  for (const item of found.values())
    for (const [name] of item.text.matchAll(identifier)) {
      const other = items.get(name);
      if (other && !found.has(name) && !other.entry) found.set(name, other);
    }
  return [...found.values()];
}

/**
 * Names that differ between two compilations of the same code. An anonymous namespace and static variables carry a hash of the
 * file and a process id, within an identifier whose length stands before it; local depots, prototypes and string constants are
 * numbered by position in the file, labels by function.
 */
function steady(text) {
  let named = text.replace(/\b(?:[A-Za-z_$][\w$]*?)?(\d+)(_GLOBAL__N__|_INTERNAL_)[\w$]*/g, (whole) => unhash(whole));
  named = named.replace(/\b__nv_static_(\d+)_/g, '__nv_static_').replace(/\$L__BB\d+_/g, '$L__BB_');
  named = named.replace(/(\b__local_depot|\bprototype_|\$L_brx_)\d+\b/g, '$1');
  const order = new Map();
  return named.replace(/\$str(?:\$\d+)?|\b__unnamed_\d+/g, (name) => {
    if (!order.has(name)) order.set(name, `#${order.size}`);
    return order.get(name);
  });
}

/** `62_GLOBAL__N__d4691dfb_...` followed by other names: the 62 characters after the number become `_N`. */
function unhash(symbol) {
  const at = /(\d+)(?=_GLOBAL__N__|_INTERNAL_)/.exec(symbol);
  const end = at.index + at[1].length + Number(at[1]);
  const rest = symbol.slice(end);
  return `${symbol.slice(0, at.index)}_N${/_GLOBAL__N__|_INTERNAL_/.test(rest) ? unhash(rest) : rest}`;
}

/** The kernels of a file: { symbol, target: "sm_90", hash }. */
export function kernelsOf(text) {
  const { header, items } = parsePtx(text);
  const target = /^\.target (sm_\w+)/.exec(header.find((line) => line.startsWith('.target')))[1];
  return [...items.values()]
    .filter((item) => item.entry)
    .map((kernel) => ({
      symbol: kernel.name,
      target,
      hash: createHash('sha256')
        .update(steady([...header, ...closure(items, kernel).map((item) => item.text)].join('\n')))
        .digest('hex'),
    }));
}
