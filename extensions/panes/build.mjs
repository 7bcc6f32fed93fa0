// Makes panes.js (one ES module) and panes.css: node build.mjs [OUTPUT FOLDER]
import { readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { dirname, join, resolve } from "node:path";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../../orchestrator_lab/widgets/static"));
await build({
  entryPoints: { panes: join(here, "src/index.ts") },
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  logLevel: "warning",
});
// esbuild before 0.28.2 drops a declaration of xterm 6: the first DECRQM query would then freeze a pane.
if (/\(void 0\|\|\(\w+=\{\}\)\)/.test(readFileSync(join(out, "panes.js"), "utf8"))) {
  rmSync(join(out, "panes.js"));
  throw new Error("panes.js was compiled wrongly: requestMode of xterm lost a declaration; use esbuild 0.28.2 or newer");
}
