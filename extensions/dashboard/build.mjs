// Builds the page into the package: one script, one style sheet, one page without anything inline.
import { build } from 'esbuild';
import { cp, mkdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, '..', '..', 'orchestrator_lab', 'server', 'static');

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: { dashboard: 'src/index.ts' },
  outdir: target,
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  legalComments: 'linked',
  logLevel: 'warning'
});
await cp(join(here, 'src', 'icon.svg'), join(target, 'icon.svg'));
// Last: a page that is there has all its files.
await cp(join(here, 'src', 'index.html'), join(target, 'index.html'));

// esbuild before 0.28.2 broke xterm 6 when minifying: a program's query of a mode froze its pane.
if (/\(void 0\|\|\(\w+=\{\}\)\)/.test(await readFile(join(target, 'dashboard.js'), 'utf8'))) {
  throw new Error('the bundle drops a declaration of xterm: build it with esbuild 0.28.2 or newer');
}
