// Runs a command with the terminal of this process and meters what CPU packages and GPUs draw meanwhile. Signals go through to it.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { DomainEnergy, Meter, MeterReading } from './meter.js';

export interface MeteredRun {
  /** What the command returned; 128 and the signal's number when a signal ended it. */
  exitCode: number;
  signal: NodeJS.Signals | null;
  /** From the call that starts the command to the notice of its end. */
  wallSeconds: number;
  energy: DomainEnergy[];
}

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  reading: Promise<MeterReading>;
}

/** Rejects with the system's error (`code` ENOENT, EACCES) when the command cannot be started. */
export async function runMetered(
  meter: Meter,
  [command, ...args]: readonly [string, ...string[]],
): Promise<MeteredRun> {
  const mark = meter.begin();
  const child = spawn(command, args, { stdio: 'inherit' });
  const release = forwardSignals((signal) => child.kill(signal));
  try {
    const { code, signal, reading } = await new Promise<Ended>((resolve, reject) => {
      // The same event tells of a signal that could not be sent; then the command runs on.
      child.on('error', (error) => child.pid === undefined && reject(error));
      child.on('exit', (code, signal) => resolve({ code, signal, reading: meter.end(mark) }));
    });
    const { seconds, domains } = await reading;
    const exitCode = signal === null ? code! : 128 + constants.signals[signal];
    return { exitCode, signal, wallSeconds: seconds, energy: domains };
  } finally {
    release();
  }
}

/**
 * Hands signals to the command instead of dying of them; the command's end is then this process's end. Ctrl-C on a terminal reaches
 * the command without help, and twice would be "at once" to many programs, so that SIGINT is handed on only without a terminal.
 */
function forwardSignals(hand: (signal: NodeJS.Signals) => void): () => void {
  const terminal = [process.stdin, process.stdout, process.stderr].some(({ isTTY }) => isTTY);
  const handlers = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map((signal) => {
    const handler = () => {
      if (signal !== 'SIGINT' || !terminal) hand(signal);
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  return () => {
    for (const off of handlers) off();
  };
}
