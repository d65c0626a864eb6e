// Every GPU of this machine and what it is doing, through NVML. Prints why there is none where there is none.
import { NvmlError, openNvml } from 'kernwatt/nvml';

/** A number with its unit, or why there is none. */
const or = (promise, show) =>
  promise.then(show, (error) => {
    if (error instanceof NvmlError) return `n/a (${error.state})`;
    throw error;
  });

try {
  const nvml = await openNvml();
  for (const gpu of await nvml.devices()) {
    const facts = await Promise.all([
      or(gpu.power(), (watts) => `${watts.toFixed(0)} W`),
      or(gpu.clock('sm'), (hertz) => `${(hertz / 1e6).toFixed(0)} MHz`),
      or(gpu.temperature(), (celsius) => `${celsius} °C`),
      or(
        gpu.memory(),
        ({ usedBytes, totalBytes }) =>
          `${(usedBytes / 2 ** 30).toFixed(1)} of ${(totalBytes / 2 ** 30).toFixed(1)} GiB`,
      ),
      or(gpu.processes(), (list) => `${list.length} processes`),
    ]);
    console.log([gpu.index, gpu.address, gpu.name, ...facts].join('  '));
  }
} catch (error) {
  if (!(error instanceof NvmlError)) throw error;
  console.log(`no GPU: ${error.detail}\nfix: ${error.fix}`);
}
