// For tools that use the declarations as compiled: dist is imported only when it is newer than the sources it came from.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const time = (file) => (existsSync(file) ? statSync(file).mtimeMs : 0);

/** Imports dist/<name>.js for each name, or says as `tool` what to do and ends the process. */
export function importBuilt(tool, names) {
  const sources = ['src', 'src/ops'].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((file) => file.endsWith('.ts'))
      .map((file) => join(folder, file).slice('src/'.length, -'.ts'.length)),
  );
  for (const name of sources)
    if (time(join(root, `dist/${name}.js`)) < time(join(root, `src/${name}.ts`))) {
      process.stderr.write(`${tool}: dist/${name}.js is older than src/${name}.ts; run npm run build\n`);
      process.exit(1);
    }
  return Promise.all(names.map((name) => import(pathToFileURL(join(root, `dist/${name}.js`)).href)));
}
