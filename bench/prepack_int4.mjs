// What prepacking a 4-bit weight brings, in turns with the plain one, both cold: node bench/prepack_int4.mjs
import { compare, gemmInt4, openDevice, quantizeInt4 } from 'kernwatt';

const device = await openDevice('cpu');
const [n, k] = [4096, 4096];
const weight = device.random([n, k], 'f32', { seed: 1, sd: 0.02 });
const ms = ({ device: { median } }) => `${(1e3 * median).toFixed(2)} ms`;

for (const m of [1, 8, 16])
  for (const group of [32, 128]) {
    const { operands } = await quantizeInt4(weight, { group });
    const { w, scales, ...others } = operands;
    const packed = { w: gemmInt4.prepack({ w }), scales: gemmInt4.prepack({ scales }), ...others };
    const x = device.random([m, k], 'f32', { seed: 2 });
    for (const accuracy of ['exact', 'int8']) {
      const plans = {
        plain: gemmInt4.bind({ x, ...operands, accuracy }),
        packed: gemmInt4.bind({ x, ...packed, accuracy }),
      };
      const { records, ratios } = await compare(plans, { baseline: 'plain', cache: 'cold', quick: true });
      const ratio = ratios.packed;
      const interval = ratio?.ci95?.map((bound) => bound.toFixed(2)).join(' to ');
      const [plain, prepacked] = ['plain', 'packed'].map((name) => ms(records[name].time));
      console.log(
        `${m} rows, groups of ${group}, ${accuracy}: plain ${plain}, packed ${prepacked}, ratio ${ratio?.value?.toFixed(2)} (${interval})`,
      );
      for (const plan of Object.values(plans)) plan.dispose();
    }
  }
await device.close();
