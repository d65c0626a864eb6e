// Prometheus's text exposition format, version 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).

export interface Sample {
  labels: Readonly<Record<string, string>>;
  value: number;
}

/** One metric with all its samples. */
export interface Family {
  name: string;
  help: string;
  type: 'counter' | 'gauge';
  samples: readonly Sample[];
}

/** What a server has to send with it. */
export const contentType = 'text/plain; version=0.0.4; charset=utf-8';

const escapeHelp = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
const escapeLabel = (text: string): string => escapeHelp(text).replaceAll('"', '\\"');

function line(name: string, { labels, value }: Sample): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`);
  return `${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}\n`;
}

/**
 * Families as text. A family without samples is left out, and so is a sample that is no finite number: what is not known is absent.
 * `notes` become comments, which scrapers skip.
 */
export function expose(families: readonly Family[], notes: readonly string[] = []): string {
  const text = families.map(({ name, help, type, samples }) => {
    const known = samples.filter(({ value }) => Number.isFinite(value));
    if (known.length === 0) return '';
    return `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${known.map((sample) => line(name, sample)).join('')}`;
  });
  // A comment that began with HELP or TYPE would be one.
  return text.join('') + notes.map((note) => `# kernwatt: ${note.replaceAll(/\s+/g, ' ')}\n`).join('');
}
