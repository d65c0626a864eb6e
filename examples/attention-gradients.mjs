// One step of training through attention: forward, gradients from what it gave, a step down them, and what the step did to the loss.
// Then what the gradients cost beside the forward, in turns.
import { attentionGqa, attentionGqaBackward, compare, openDevice } from 'kernwatt';

const device = await openDevice(); // a GPU that opens, else the CPU
const [len, heads, headsKv, dim] = [256, 8, 2, 64];
const random = (h, seed) => device.random([1, len, h, dim], 'f32', { seed });
const [q, k, v, target] = [random(heads, 1), random(headsKv, 2), random(headsKv, 3), random(heads, 4)];

/** Half the squared distance from the target, its gradient by y, and what the backward needs. */
async function forward(values) {
  const { y, lse } = attentionGqa({ q, k, v: values, causal: true });
  const [have, want] = [await y.read(), await target.read()];
  const difference = have.map((value, i) => value - want[i]);
  return { y, lse, dy: device.tensor(difference, y.shape), loss: difference.reduce((sum, d) => sum + (d * d) / 2, 0) };
}

const before = await forward(v);
const { y, lse, dy } = before;
const { dv } = attentionGqaBackward({ q, k, v, y, lse, dy, causal: true });
const gradient = await dv.read();
const [rate, values] = [0.05, await v.read()];
const stepped = device.tensor(
  values.map((value, i) => value - rate * gradient[i]),
  v.shape,
);
const after = await forward(stepped);
console.log(`loss ${before.loss.toFixed(1)}, after a step along dv ${after.loss.toFixed(1)}`);

const plans = {
  forward: attentionGqa.bind({ q, k, v, causal: true }),
  backward: attentionGqaBackward.bind({ q, k, v, y, lse, dy, causal: true }),
};
const { ratios } = await compare(plans, { baseline: 'forward', cache: 'hot', quick: true });
const { backward } = ratios;
if (backward)
  console.log(
    `the gradients take ${backward.value.toFixed(2)} times as long as the forward, 95 % interval ${backward.ci95?.map((r) => r.toFixed(2))}`,
  );

await device.close();
