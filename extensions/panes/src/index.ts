import "@xterm/xterm/css/xterm.css";
import "./style.css";
import { createPlayer, type PlayerOptions } from "./player";
import type { Options, Still, Transport } from "./protocol";
import { createView, type View } from "./view";

export { createPlayer, createView };
export type { Options, Transport, View };

/** The part of anywidget's model that is used here. */
interface Model {
  get(name: string): unknown;
  on(name: string, call: (...args: never[]) => void): void;
  off(name: string, call: (...args: never[]) => void): void;
  send(content: object): void;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const transport: Transport = {
    send(message) {
      try {
        model.send(message);
      } catch {
        // The kernel is gone; what is shown stays, and nobody can be told.
      }
    },
    onMessage(handler) {
      const call = (message: object, buffers: DataView[]): void => handler(message, buffers);
      model.on("msg:custom", call);
      return () => model.off("msg:custom", call);
    },
  };
  const options = model.get("options") as Options & Partial<PlayerOptions>;
  if (options.film) {
    const player = createPlayer(el, transport, { ...options, film: options.film });
    return () => player.dispose();
  }
  const view = createView(el, transport, {
    ...options,
    acks: true,
    still: model.get("snapshot") as Still | null,
  });
  view.stillHtml = () => String(model.get("still") ?? "");
  return () => view.dispose();
}

export default { render };
