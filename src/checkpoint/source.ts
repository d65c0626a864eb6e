// One file of a checkpoint, read by range at explicit positions. Not mapped into memory: a mapped file that somebody truncates kills
// the process with SIGBUS, a short read is an error that names the file; and both copy from the same page cache.
import { type FileHandle, open } from 'node:fs/promises';
import { KernwattError } from '../errors.js';
import { CheckpointError } from './error.js';

export interface ReadOptions {
  signal?: AbortSignal | undefined;
}

/** Bytes of one read, so that an abort is seen soon and no read exceeds what systems take at once. */
const piece = 64 * 2 ** 20;

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'is missing',
  EACCES: 'is denied to this user',
  EISDIR: 'is a folder',
};

/** @internal The error of an attempt to use a file, in this library's words. */
export function fileError(file: string, cause: unknown): CheckpointError {
  const { code, message } = cause as NodeJS.ErrnoException;
  return new CheckpointError('FILE', { file }, `${reasons[code ?? ''] ?? message}, expected a readable file`, {
    cause,
  });
}

export class SourceFile {
  readonly path: string;
  /** Bytes when it was opened. */
  readonly size: number;
  readonly #handle: FileHandle;
  #closed: Promise<void> | undefined;

  private constructor(path: string, size: number, handle: FileHandle) {
    this.path = path;
    this.size = size;
    this.#handle = handle;
  }

  /** @throws {CheckpointError} `FILE` where there is no such regular file, or it may not be read. */
  static async open(path: string): Promise<SourceFile> {
    const handle = await open(path, 'r').catch((error: unknown) => {
      throw fileError(path, error);
    });
    const status = await handle.stat();
    if (status.isFile()) return new SourceFile(path, status.size, handle);
    await handle.close();
    throw new CheckpointError('FILE', { file: path }, 'is no regular file, expected one');
  }

  /** Part of the file in memory of its own. The caller has checked that the part lies within `size`. */
  async read(position: number, bytes: number, tensor?: string, options?: ReadOptions): Promise<Uint8Array> {
    let into: Uint8Array;
    try {
      into = new Uint8Array(bytes);
    } catch (cause) {
      throw new KernwattError(
        'OUT_OF_MEMORY',
        `${this.path}: ${tensor ?? 'header'} has ${bytes} bytes, expected what fits in one array`,
        { cause },
      );
    }
    await this.readInto(into, position, tensor, options);
    return into;
  }

  /** Fills `into` from `position` on. */
  async readInto(into: Uint8Array, position: number, tensor?: string, { signal }: ReadOptions = {}): Promise<void> {
    for (let done = 0; done < into.length; ) {
      signal?.throwIfAborted();
      if (this.#closed) throw new KernwattError('DISPOSED', `${this.path}: checkpoint is closed, expected an open one`);
      const length = Math.min(piece, into.length - done);
      const { bytesRead } = await this.#handle.read(into, done, length, position + done).catch((error: unknown) => {
        throw fileError(this.path, error);
      });
      if (bytesRead === 0)
        throw new CheckpointError(
          'FILE',
          { file: this.path, tensor },
          `ends at byte ${position + done} of the file, expected ${position + into.length}: it became shorter after it was opened`,
        );
      done += bytesRead;
    }
  }

  /** Resolves once reads under way are done. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#handle.close();
    return this.#closed;
  }
}
