/** Stable error codes; `error.code` is the name with `ERR_KERNWATT_` before it. */
export const codes = [
  'SHAPE',
  'DTYPE',
  'INDEX',
  'UNSUPPORTED',
  'DISPOSED',
  'BUSY',
  'OUT_OF_MEMORY',
  'DEVICE_LOST',
  'CUDA',
  'NVML',
  'LIBRARY',
  'FILE',
  'ARGUMENT',
  'INTERNAL',
] as const;
export type Code = (typeof codes)[number];

/**
 * Every error of this library. The message is a sentence `<where>: <name> is <received>, expected <expected>`;
 * `code` is stable across releases.
 */
export class KernwattError extends Error {
  readonly code: `ERR_KERNWATT_${Code}`;

  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'KernwattError';
    this.code = `ERR_KERNWATT_${code}`;
  }
}
