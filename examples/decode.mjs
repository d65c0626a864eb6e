// Two requests that share a server: prompts of different length in one padded call, then one token at a time over their caches.
import { attentionGqa, openDevice } from 'kernwatt';

const device = await openDevice(); // a GPU that opens, else the CPU
const [batch, headsQ, headsKv, dim, capacity] = [2, 8, 2, 64, 512];
const lengths = [100, 37];
const random = (len, heads, seed) => device.random([batch, len, heads, dim], 'bf16', { seed });

// The caches hold keys and values of the prompts; what lies past a length is never read.
const [k, v] = [random(capacity, headsKv, 1), random(capacity, headsKv, 2)];
const longest = Math.max(...lengths);
const prompt = attentionGqa({
  q: random(longest, headsQ, 3),
  k: k.slice([null, [0, longest]]),
  v: v.slice([null, [0, longest]]),
  lensQ: device.tensor(Int32Array.from(lengths)),
  lensKv: device.tensor(Int32Array.from(lengths)),
  causal: true,
});
console.log('prompts', prompt.y.shape);

// One query each: bound once, queued for every token. A model would write each token's key and value into the caches first.
const lensKv = device.tensor(Int32Array.from(lengths));
const plan = attentionGqa.bind({ q: random(1, headsQ, 4), k, v, lensKv });
for (let token = 1; token <= 3; ++token) {
  lensKv.write(lengths.map((length) => length + token));
  const { lse } = await plan.run();
  console.log(
    `token ${token}: log of the first head's sums`,
    (await lse.read()).filter((_, i) => i % headsQ === 0),
  );
}
console.log(plan.explain());

await device.close(); // gives back everything that lives on it
