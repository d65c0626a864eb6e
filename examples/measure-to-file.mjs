// Measure one layer and append the record to a file of JSON lines: node examples/measure-to-file.mjs [records.jsonl]
import { appendFile } from 'node:fs/promises';
import { gemm, measure, openDevice } from 'kernwatt';

const file = process.argv[2] ?? 'records.jsonl';
const device = await openDevice();

const x = device.random([1, 2048], 'bf16', { seed: 1 });
const w = device.random([2048, 2048], 'bf16', { seed: 2 });
const plan = gemm.bind({ x, w });

const record = await measure(plan, { name: 'one token', cache: 'cold', quick: true });
await appendFile(file, `${JSON.stringify(record)}\n`);

// A wrong result has no performance: then time, rate and metrics are null.
console.log(`${record.case.name}: ${record.verdict}`);
if (record.time) {
  const clock = record.time[record.time.headline];
  const { ofPeakBandwidth } = record.utilisation;
  console.log(`  ${(1e6 * clock.median).toFixed(1)} µs per call, operands ${record.time.cache}`);
  // A number that is not known is null and says why.
  if (ofPeakBandwidth.value === null) console.log(`  share of memory bandwidth: ${ofPeakBandwidth.reason}`);
  else console.log(`  ${(100 * ofPeakBandwidth.value).toFixed(0)} % ${ofPeakBandwidth.basis}`);
  const { perCallJ, includes } = record.energy;
  if (perCallJ.value === null) console.log(`  energy: ${perCallJ.reason}`);
  else console.log(`  ${(1e3 * perCallJ.value).toFixed(3)} mJ per call, of ${includes.join(', ')}`);
}

await device.close();
