import type { Terminal } from "@xterm/xterm";

/** Modes by which a program asks a terminal to report the mouse, the focus, or colour schemes: nobody is told. */
const REPORTING = new Set([9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2031]);

/**
 * Makes a terminal a picture only: it answers no question of the program's, since tmux has answered already, it sets no
 * title and no clipboard, and reports neither mouse nor focus.
 */
export function silence(terminal: Terminal): void {
  const parser = terminal.parser;
  const ignore = (): boolean => true;
  for (const id of [
    { final: "c" }, // device attributes
    { prefix: ">", final: "c" },
    { prefix: "=", final: "c" },
    { prefix: ">", final: "q" }, // version
    { final: "n" }, // device status, place of the cursor
    { prefix: "?", final: "n" },
    { intermediates: "$", final: "p" }, // DECRQM
    { prefix: "?", intermediates: "$", final: "p" },
    { final: "x" }, // terminal parameters
    { final: "t" }, // window operations
    { prefix: "?", final: "u" }, // keyboard protocol
  ]) {
    parser.registerCsiHandler(id, ignore);
  }
  // In a list with others the modes are set: what the terminal would report then is an answer that nobody is told.
  parser.registerCsiHandler({ prefix: "?", final: "h" }, (params) =>
    params.flat().every((number) => REPORTING.has(number)),
  );
  parser.registerDcsHandler({ intermediates: "$", final: "q" }, ignore); // DECRQSS
  parser.registerDcsHandler({ intermediates: "+", final: "q" }, ignore); // XTGETTCAP
  for (const command of [0, 1, 2, 7, 9, 52, 777, 1337]) parser.registerOscHandler(command, ignore);
  for (const command of [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]) {
    // Colours may be set, but not asked for.
    parser.registerOscHandler(command, (data) => data.includes("?"));
  }
}

/**
 * Answers and reports that a terminal gives by itself, should one of them get past `silence`. A person's Alt+], Alt+_,
 * Alt+^ and Alt+Shift+P begin like one and end there.
 */
const ANSWER = /^\x1b(?:\[[?>=]?[\d;]*(?:[cn]|\$y)|\[[IO]$|\[M|\[<|[P\]_^][^])/;

export function isAnswer(data: string): boolean {
  return ANSWER.test(data);
}

/** Opens a link that an agent printed, if it leads to a web page. */
export function openLink(text: string): void {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return;
  window.open(url.href, "_blank", "noopener,noreferrer");
}
