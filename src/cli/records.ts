// Writes records as JSON lines without ever losing what a file holds: appends to a file of records, creates a new one, and
// refuses anything else unless told to replace it.
import { appendFileSync, existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type MeasureRecord, schema } from '../measure/record.js';
import { UsageError } from './usage.js';

/** Number (from 1) of the first line that is not a record of ours; 0 when all are. */
function firstForeignLine(path: string): number {
  const text = readFileSync(path, 'utf8');
  if (text !== '' && !text.endsWith('\n')) return text.split('\n').length;
  const family = schema.split('/')[0]!;
  return (
    text
      .split('\n')
      .slice(0, -1)
      .findIndex((line) => {
        try {
          return !(JSON.parse(line) as { schema?: string }).schema?.startsWith(`${family}/`);
        } catch {
          return true;
        }
      }) + 1
  );
}

export class RecordFile {
  readonly #path: string;

  /** Fails before anything is measured. */
  constructor(path: string, force = false) {
    this.#path = path;
    if (!existsSync(dirname(path) || '.'))
      throw new UsageError(`--out is ${path}, expected a file in a folder that exists`);
    if (!existsSync(path)) return;
    if (!statSync(path).isFile()) throw new UsageError(`--out is ${path}, expected a file`);
    const line = firstForeignLine(path);
    if (line === 0) return;
    if (!force)
      throw new UsageError(
        `--out is ${path}, whose line ${line} is not a record; expected a file of records, or --force to replace it`,
      );
    // The old contents are gone only once the new file is complete.
    writeFileSync(`${path}.new`, '');
    renameSync(`${path}.new`, path);
  }

  /** One write of one whole line. */
  append(record: MeasureRecord): void {
    appendFileSync(this.#path, `${JSON.stringify(record)}\n`);
  }
}
