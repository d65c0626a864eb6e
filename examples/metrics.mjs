// Live counters for Prometheus: energy, power, clocks, memory and throttling of GPUs, energy of CPU packages, memory of kernwatt's devices.
//
//   node examples/metrics.mjs                            PORT=0 takes any free port; stop it with Ctrl-C
//   curl -s localhost:9464/metrics
import { createServer } from 'node:http';
import { openDevice } from 'kernwatt';
import { openExporter } from 'kernwatt/prometheus';

const device = await openDevice(); // a GPU that opens, else the CPU
const exporter = await openExporter({ devices: [device] });

const server = createServer(async (request, response) => {
  if (request.url !== '/metrics') return void response.writeHead(404).end('GET /metrics\n');
  try {
    const text = await exporter.metrics();
    response.writeHead(200, { 'content-type': exporter.contentType }).end(text);
  } catch (error) {
    response.writeHead(500).end(`${error.message}\n`);
  }
});

async function stop() {
  server.close();
  server.closeIdleConnections();
  await exporter.close();
  await device.close();
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);

server.listen(Number(process.env.PORT ?? 9464), () => {
  console.log(`listening on ${server.address().port}, computing on ${device.name}`);
});
