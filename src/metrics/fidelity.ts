// How close results are to a reference: what stands in for the paper's performance' / performance where no task is scored.
import { KernwattError } from '../errors.js';

export interface Fidelity {
  /** ‖result - reference‖ / ‖reference‖. */
  relativeError: number;
  /** Signal over noise, decibels: -20 log10 of the relative error; Infinity where they are equal. */
  snr: number;
  /** Of the angle between the two: 1 where they point the same way. NaN for a result that is 0 everywhere. */
  cosine: number;
}

/**
 * Compares two lists of numbers as vectors, in double precision.
 * @throws {KernwattError} `SHAPE` for different lengths; `ARGUMENT` for a reference that is 0 everywhere.
 */
export function fidelity(reference: ArrayLike<number>, result: ArrayLike<number>): Fidelity {
  if (reference.length !== result.length)
    throw new KernwattError(
      'SHAPE',
      `fidelity: result has ${result.length} elements, expected ${reference.length} as reference`,
    );
  let [signal, noise, power, product] = [0, 0, 0, 0];
  for (let i = 0; i < reference.length; i++) {
    const [r, y] = [reference[i]!, result[i]!];
    signal += r * r;
    noise += (y - r) ** 2;
    power += y * y;
    product += r * y;
  }
  if (signal === 0) throw new KernwattError('ARGUMENT', 'fidelity: reference is 0 everywhere, expected another value');
  const relativeError = Math.sqrt(noise / signal);
  return { relativeError, snr: -20 * Math.log10(relativeError), cosine: product / Math.sqrt(signal * power) };
}
