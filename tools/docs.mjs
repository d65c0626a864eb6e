// Writes docs/operators.md from the declarations in src/ops: shapes, dtypes and parameters from the specs themselves, meanings
// from the comments beside them. `--check` writes nothing and exits 1 when the page is stale.
//
//   node tools/docs.mjs [--check]
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { importBuilt } from './built.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const page = join(root, 'docs/operators.md');

const parse = (file) => ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest, true);

/** The properties of an object literal, those that it spreads or is named for included, wherever these were imported from. */
function propertiesOf(node, source) {
  if (!ts.isIdentifier(node))
    return (node.properties ?? []).flatMap((one) =>
      ts.isSpreadAssignment(one) ? propertiesOf(one.expression, source) : [one],
    );
  for (const statement of source.statements) {
    const declared = ts.isVariableStatement(statement)
      ? statement.declarationList.declarations.find(({ name }) => name.getText() === node.text)
      : undefined;
    if (declared) return propertiesOf(declared.initializer, source);
    const imported = ts.isImportDeclaration(statement) ? statement.importClause?.namedBindings?.elements : undefined;
    if (!imported?.some(({ name }) => name.text === node.text)) continue;
    const file = join(dirname(source.fileName), statement.moduleSpecifier.text.replace(/\.js$/, '.ts'));
    return propertiesOf(node, parse(file));
  }
  throw new Error(`${source.fileName}: ${node.text} is declared nowhere`);
}

/** The comment of each property of the object literal `defineOp({ tensors: {...}, params: {...} })`, and the one of the operator. */
function comments(file) {
  const source = parse(file);
  const found = { op: '', of: {} };
  const textOf = (node) => {
    const [doc] = ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc).slice(-1);
    return doc ? (ts.getTextOfJSDocComment(doc.comment) ?? '') : '';
  };
  const visit = (node) => {
    if (ts.isVariableStatement(node) && /defineOp\(/.test(node.getText())) found.op ||= textOf(node);
    if (ts.isPropertyAssignment(node) && ['tensors', 'params'].includes(node.name.getText()))
      for (const property of propertiesOf(node.initializer, source))
        found.of[property.name.getText()] = textOf(property);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

const code = (text) => `\`${text}\``;
const oneLine = (text) => text.replace(/\s+/g, ' ').trim();

function shape(t) {
  const [plain, swapped] = [t.dims, [...t.dims.slice(0, -2), ...t.dims.slice(-2).reverse()]];
  const text = code(`[${plain.join(', ')}]`);
  return t.transpose ? `${text}, with ${code(t.transpose)} ${code(`[${swapped.join(', ')}]`)}` : text;
}

const kind = { in: 'input', 'in?': 'optional input', inout: 'updated', out: 'output' };
const type = (p) =>
  ({ f32: 'number', i64: 'integer', bool: 'boolean', choice: p.choices?.map(code).join(', ') })[p.kind];
const dtypeText = ({ dtype }) =>
  Array.isArray(dtype) ? dtype.join(', ') : [`that of ${code(dtype.like)}`, ...(dtype.or ?? [])].join(' or ');
const preset = (p) =>
  p.required ? 'required' : typeof p.default === 'function' ? p.defaultText : code(JSON.stringify(p.default));

/** Columns padded to their widest cell, as Markdown formatters leave them. */
function table(head, rows) {
  const widths = head.map((_, i) => Math.max(3, ...[head, ...rows].map((cells) => cells[i].length)));
  const line = (cells, fill = ' ') => `| ${cells.map((cell, i) => cell.padEnd(widths[i], fill)).join(' | ')} |`;
  return [
    line(head),
    line(
      head.map(() => ''),
      '-',
    ),
    ...rows.map((cells) => line(cells)),
  ].join('\n');
}

function section(name, { spec }) {
  const file = join(root, 'src/ops', `${spec.name}.ts`);
  const { op, of } = comments(file);
  const tensors = Object.entries(spec.tensors);
  const intro = op.split('\n\n').filter((part) => !part.trimStart().startsWith('|'));
  const outputs = tensors.filter(([, t]) => ['inout', 'out'].includes(t.role));
  const rules = outputs.map(([out, t]) => {
    if (t.role === 'inout') return `${code(out)} is updated in place; what the call does not write stays as it is.`;
    const place = t.inPlace?.length ? ` It may be exactly the same view as ${t.inPlace.map(code).join(' or ')}.` : '';
    const dtype = t.from ? `in the dtype of ${code(t.from)} or \`options.dtype\`` : `in ${t.dtype[0]}`;
    return `${code(out)} is allocated unless given, ${dtype}.${place}`;
  });
  const params = Object.entries(spec.params).map(([n, p]) => [code(n), type(p), preset(p), oneLine(of[n] ?? '')]);
  const backends = ['cpu', 'cuda'].filter((b) =>
    existsSync(join(root, 'kernels', spec.name, `${spec.name}_${b}.${b === 'cuda' ? 'cu' : 'cc'}`)),
  );
  return [
    `## ${code(spec.name)}`,
    ...intro.map((part) => part.trim()),
    `\`\`\`ts\nimport { ${name} } from 'kernwatt';\nconst { ${outputs.map(([n]) => n).join(', ')} } = ${name}({ ${tensors
      .filter(([, t]) => ['in', 'inout'].includes(t.role))
      .map(([n]) => n)
      .join(', ')} });\n\`\`\``,
    table(
      ['tensor', 'role', 'shape', 'dtype', 'meaning'],
      tensors.map(([n, t]) => [code(n), kind[t.role], shape(t), dtypeText(t), oneLine(of[n] ?? '')]),
    ),
    ...(params.length > 0 ? [table(['parameter', 'values', 'default', 'meaning'], params)] : []),
    rules.join(' '),
    `- FLOPs counted: ${spec.flops}. Minimum bytes: what is read of every operand, once, in its own dtype.`,
    [
      `- Contract with rounding points and tolerance: [kernels/${spec.name}/${spec.name}.h](../kernels/${spec.name}/${spec.name}.h).`,
      `- Backends: \`ref\` (the definition, double precision), ${backends.map(code).join(', ')}.`,
      `- Checked by ${spec.cases().length} cases; ${spec.models.length} shapes of served models to benchmark.`,
      `- Source: ${spec.source}.`,
    ].join('\n'),
  ]
    .join('\n\n')
    .replace(/in its own dtype\.\n\n- /, 'in its own dtype.\n- ');
}

async function write() {
  const [ops] = await importBuilt('docs', ['ops/index']);
  const listed = Object.entries(ops).sort(([, a], [, b]) => (a.spec.name < b.spec.name ? -1 : 1));
  const text = [
    '# Operators',
    '<!-- Written by `npm run docs` from src/ops; edit the declarations there. -->',
    'A dimension ending in `?` may be absent, or 1 where others have more: it is then shared; `n or 1` may be 1 likewise, and\n' +
      '`n + 1` has one element more than others have. The last dimension of every tensor is contiguous; the others may have any\n' +
      'strides. Every operator takes `(args, { stream, backend, dtype, configuration })`, and `op.bind(args, options)` gives a plan to queue as\n' +
      'often as wanted. Errors are `KernwattError` with a stable `code`.',
    table(
      ['operator', 'summary'],
      listed.map(([, { spec }]) => [`[${code(spec.name)}](#${spec.name})`, spec.summary]),
    ),
    ...listed.map(([name, op]) => section(name, op)),
  ].join('\n\n');
  return `${text}\n`;
}

const fresh = await write();
if (process.argv.includes('--check')) {
  const old = existsSync(page) ? readFileSync(page, 'utf8') : '';
  if (old !== fresh) {
    const at = fresh.split('\n').findIndex((line, i) => line !== old.split('\n')[i]);
    process.stderr.write(
      `docs/operators.md is stale from line ${at + 1}, expected:\n  ${fresh.split('\n')[at]}\nrun npm run docs\n`,
    );
    process.exit(1);
  }
} else {
  writeFileSync(page, fresh);
}
