// JSON out of files that nobody vouches for: objects alone, and every key once.
import { CheckpointError } from './error.js';

export type JsonObject = Readonly<Record<string, unknown>>;

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * The object that `bytes` are the JSON of.
 * @param what names it in errors: `header`, `index`.
 * @throws {CheckpointError} `FILE` for bytes that are not UTF-8 or not JSON, another value than an object, or a key given twice.
 */
export function parseObject(file: string, what: string, bytes: Uint8Array): JsonObject {
  const refuse = (received: string, cause?: unknown): never => {
    throw new CheckpointError('FILE', { file }, `${what} is ${received}, expected a JSON object`, { cause });
  };
  let text = '';
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    refuse(`not JSON in UTF-8 (${(error as Error).message})`, error);
  }
  const twice = repeatedKey(text);
  if (twice !== undefined)
    throw new CheckpointError('FILE', { file }, `${what} has the key ${twice} twice, expected every key once`);
  if (isObject(value)) return value;
  return refuse(Array.isArray(value) ? 'a list' : String(value));
}

/** A key that an object of this valid JSON text has twice; JSON.parse keeps the last without a word. */
function repeatedKey(text: string): string | undefined {
  const objects: Set<string>[] = [];
  const special = /["{}]/g;
  const colon = /\s*:/y;
  for (let found = special.exec(text); found; found = special.exec(text)) {
    if (found[0] === '{') objects.push(new Set());
    else if (found[0] === '}') objects.pop();
    else {
      const end = endOfString(text, found.index);
      special.lastIndex = colon.lastIndex = end;
      if (!colon.test(text)) continue;
      const key = JSON.parse(text.slice(found.index, end)) as string;
      const keys = objects.at(-1)!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

/** The position behind the string literal that begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let i = start + 1; ; ++i) {
    const c = text.charCodeAt(i);
    if (c === 0x22) return i + 1;
    if (c === 0x5c) ++i;
  }
}
