import type { ITheme } from "@xterm/xterm";

export type Shade = "light" | "dark";

export const DARK: ITheme = {
  background: "#1b1d21",
  foreground: "#d7dae0",
  cursor: "#d7dae0",
  cursorAccent: "#1b1d21",
  selectionBackground: "#44506a",
  black: "#3b4048",
  red: "#f0716b",
  green: "#5fc98a",
  yellow: "#e0bd5e",
  blue: "#6ba4f5",
  magenta: "#cf86dd",
  cyan: "#4fbdce",
  white: "#d7dae0",
  brightBlack: "#8b929e",
  brightRed: "#ff948f",
  brightGreen: "#86e3ab",
  brightYellow: "#f5d98a",
  brightBlue: "#9cc3ff",
  brightMagenta: "#e6abf1",
  brightCyan: "#86dce9",
  brightWhite: "#ffffff",
};

export const LIGHT: ITheme = {
  background: "#ffffff",
  foreground: "#24292f",
  cursor: "#24292f",
  cursorAccent: "#ffffff",
  selectionBackground: "#b6d4fb",
  black: "#24292f",
  red: "#c0262e",
  green: "#1a7f42",
  yellow: "#8a6100",
  blue: "#0a5dc2",
  magenta: "#8a3fb0",
  cyan: "#0f7285",
  white: "#6a7280",
  brightBlack: "#57606a",
  brightRed: "#a40e26",
  brightGreen: "#126b36",
  brightYellow: "#6d4c00",
  brightBlue: "#0a4fa8",
  brightMagenta: "#75309a",
  brightCyan: "#0a5f70",
  brightWhite: "#8c959f",
};

/** Finds out whether the page around an element is light or dark: by what JupyterLab says, else by its colour. */
export function shadeOf(element: Element): Shade {
  const marked = element.closest<HTMLElement>("[data-jp-theme-light]");
  if (marked) return marked.dataset.jpThemeLight === "true" ? "light" : "dark";
  for (let at: Element | null = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at)
      .backgroundColor.match(/[\d.]+/g)
      ?.map(Number);
    if (!colour || colour.length < 3 || colour[3] === 0) continue;
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 128 ? "dark" : "light";
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}
