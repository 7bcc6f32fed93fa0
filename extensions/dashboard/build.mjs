// Makes the page: one script, one style sheet, nothing inline: node build.mjs [OUTPUT FOLDER]
// The view of panes is a part of it, and it is built with the view's tools.
import { cpSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, '../../orchestrator_lab/server/static'));
const { build } = createRequire(join(here, '../panes/package.json'))('esbuild');

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
await build({
  entryPoints: { dashboard: join(here, 'src/index.ts') },
  outdir: out,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  legalComments: 'linked',
  logLevel: 'warning'
});
// esbuild before 0.28.2 drops a declaration of xterm 6: the first DECRQM query would then freeze a pane.
if (/\(void 0\|\|\(\w+=\{\}\)\)/.test(readFileSync(join(out, 'dashboard.js'), 'utf8'))) {
  throw new Error('dashboard.js was compiled wrongly: requestMode of xterm lost a declaration; use esbuild 0.28.2 or newer');
}
cpSync(join(here, 'src/icon.svg'), join(out, 'icon.svg'));
// Last: a page that is there has all its files.
cpSync(join(here, 'src/index.html'), join(out, 'index.html'));
