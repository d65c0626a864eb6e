// A report as one HTML page that needs nothing else: the data as JSON, the style and the script (src/report/page, bundled with its
// charting library by tools/build.mjs) inside it, and a policy that lets it load nothing.
import { readFileSync } from 'node:fs';
import type { Report } from './model.js';
import { pack } from './pack.js';
import type { Weights } from './quantities.js';

/** JSON that no HTML parser takes for markup, whatever the strings in it say. */
export const embedded = (value: unknown): string =>
  JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );

/** The bundle of the page as the build leaves it; in a checkout the sources have it in dist/ too. */
function part(name: 'page.js' | 'page.css'): string {
  return readFileSync(new URL(`../../dist/report/page/${name}`, import.meta.url), 'utf8');
}

export function html(report: Report, weights: Weights): string {
  // Inside a script element only its end tag and comments could break out, and in JavaScript `\/` and `\!` are `/` and `!`.
  const script = part('page.js').replace(/<(\/script|!--)/gi, '<\\$1');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>kernwatt report</title>
<style>
${part('page.css')}</style>
</head>
<body>
<noscript><p>This page draws its charts and tables with JavaScript. Without it, <code>kernwatt report F.jsonl</code> prints the same as Markdown.</p></noscript>
<main id="report"></main>
<script type="application/json" id="data">${embedded(pack(report, weights))}</script>
<script>
${script}</script>
</body>
</html>
`;
}
