// A progress line with the time left, on a terminal only: nothing is written when output is piped.
import yoctoSpinner, { type Spinner } from 'yocto-spinner';
import { duration } from '../report/format.js';

export interface ProgressLine {
  /** What is going on, and how much of everything is done (0 to 1). */
  update(text: string, done: number): void;
  stop(): void;
}

/** Seconds left, given the seconds passed and the share done; null while too little is done to tell. */
export const secondsLeft = (elapsed: number, done: number): number | null =>
  done < 0.02 || elapsed < 1 ? null : (elapsed * (1 - done)) / done;

export function progressLine(stream: NodeJS.WriteStream = process.stderr, quiet = false): ProgressLine {
  if (quiet || !stream.isTTY) return { update: () => {}, stop: () => {} };
  const started = performance.now();
  let spinner: Spinner | undefined;
  return {
    update(text, done) {
      const left = secondsLeft((performance.now() - started) / 1000, done);
      const line = left === null ? text : `${text} (about ${duration(left)} left)`;
      // The command owns Ctrl-C: it stops the measurement and prints what there is.
      spinner ??= yoctoSpinner({ stream, handleSignals: false }).start();
      spinner.text = line;
    },
    stop() {
      spinner?.stop();
      spinner = undefined;
    },
  };
}
