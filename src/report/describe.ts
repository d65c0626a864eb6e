// What a record was taken of and where, in the few words that tables and reports show.
import type { MeasureRecord } from '../measure/record.js';
import * as ops from '../ops/index.js';
import { percent, si } from './format.js';

/** Type of the main operand, and of the output where it differs. */
export const types = ({ case: { dtype } }: { case: Pick<MeasureRecord['case'], 'dtype'> }): string => {
  const { x = Object.values(dtype)[0] ?? '', y = x } = dtype;
  return x === y ? x : `${x} to ${y}`;
};

const specOf = (name: string | null) => Object.values(ops).find(({ spec }) => spec.name === name)?.spec;

/** Sizes by name without those that follow from others or belong to absent inputs (0); a batch of 1 says nothing. */
export function sizes({ case: { op, shape } }: { case: Pick<MeasureRecord['case'], 'op' | 'shape'> }): string {
  const derived = specOf(op)?.derive ?? {};
  return Object.entries(shape)
    .filter(([name, size]) => !(name in derived) && size !== 0 && (name !== 'batch' || size !== 1))
    .map(([name, size]) => `${name}=${size}`)
    .join(' ');
}

/** The variant, without the operator it belongs to, and where it ran unless that is the CPU. */
export function kernel({ kernel: of, case: { op } }: MeasureRecord): string {
  if (of === null) return 'function';
  const variant = String(of.explain.variant ?? of.backend).replace(`${op}_`, '');
  return of.device === 'cpu' ? variant : `${of.device} ${variant}`;
}

/** The share that matters: of the peak that bounds this work, or of the arithmetic peak where no roof applies. */
export function ofPeak({ utilisation, roofline }: MeasureRecord): string {
  if (utilisation === null) return 'n/a';
  const bandwidth = roofline?.boundBy === 'bandwidth';
  const share = bandwidth ? utilisation.ofPeakBandwidth : utilisation.ofPeakFlops;
  const peak = utilisation.peaks.find(({ kind }) => kind === (bandwidth ? 'bandwidth' : 'flops'));
  return share.value === null ? 'n/a' : `${percent(share.value)} ${peak?.name ?? ''}`.trim();
}

/** Where the records were taken, one line for each device. */
export function places(records: readonly MeasureRecord[]): string[] {
  const lines = records.map(({ env: { cpu, device, node }, tool }) => {
    const commit = tool.gitSha ? ` ${tool.gitSha.slice(0, 10)}${tool.dirty ? ' with local changes' : ''}` : '';
    const by = `kernwatt ${tool.version}${commit}, Node ${node.version}`;
    if (device === null || device.threads !== null) {
      const used = device ? `, ${device.threads} threads, ${device.isa}` : '';
      return `${cpu.model}, ${cpu.cores} cores${cpu.virtualised ? ' (virtual)' : ''}${used}; ${by}`;
    }
    return `${device.name}: ${device.product}, driver ${device.driver ?? 'unknown'}; ${by}`;
  });
  return [...new Set(lines)];
}

/** The ceilings that shares refer to, once each. */
export function ceilings(records: readonly MeasureRecord[]): string[] {
  const peaks = records.flatMap(({ utilisation, kernel: of }) =>
    (utilisation?.peaks ?? []).map(
      (peak) =>
        `peak ${peak.name} on ${of?.device ?? '?'}: ${si(peak.value, peak.unit)}, ${peak.source}: ${peak.provenance}`,
    ),
  );
  return [...new Set(peaks)];
}

/** What counts as a floating-point operation, once for each operator. */
export function conventions(records: readonly MeasureRecord[]): string[] {
  const specs = new Set(records.map(({ case: { op } }) => specOf(op)));
  return [...specs].flatMap((spec) => (spec ? [`FLOP of ${spec.name}: ${spec.flops}`] : []));
}
