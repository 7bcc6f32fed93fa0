import { make, setText } from "../../shared/src/dom";
import type { MessageFacts } from "./protocol";

const KEPT = 300;
const FOLDED = 140;

interface Row {
  element: HTMLElement;
  rung: HTMLElement;
  facts: MessageFacts;
}

/** The stream of messages: who wrote to whom, how far it has come, the text folded. */
export class Messages {
  readonly element = make("section", "olab-messages", null, { "aria-label": "Messages" });
  private readonly list = make("ol", "olab-list", null, { role: "log", "aria-live": "off", tabindex: "0" });
  private readonly filter = make("select", "olab-filter", null, { "aria-label": "Show messages of" });
  private readonly empty = make("p", "olab-empty", "No messages yet.");
  private readonly rows = new Map<string, Row>();

  constructor() {
    const head = make("header", "olab-head");
    const label = make("label", "olab-filter-label", "of ");
    label.append(this.filter);
    head.append(make("strong", "olab-name", "Messages"), label);
    this.element.append(head, this.empty, this.list);
    this.filter.append(new Option("all agents", ""));
    this.filter.addEventListener("change", () => this.sift());
  }

  setAgents(names: string[]): void {
    const chosen = this.filter.value;
    const options = ["", ...names];
    if (options.join("\n") === [...this.filter.options].map((option) => option.value).join("\n")) return;
    this.filter.replaceChildren(...options.map((name) => new Option(name || "all agents", name)));
    this.filter.value = options.includes(chosen) ? chosen : "";
    this.sift();
  }

  tell(messages: MessageFacts[]): void {
    const list = this.list;
    const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
    for (const message of messages) {
      const row = this.rows.get(message.message_id);
      if (row) this.update(row, message);
      else if (message.sender != null) this.add(message);
    }
    while (this.rows.size > KEPT) {
      const [first, row] = this.rows.entries().next().value as [string, Row];
      row.element.remove();
      this.rows.delete(first);
    }
    this.empty.hidden = this.rows.size > 0;
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  private add(message: MessageFacts): void {
    const element = make("li", "olab-message");
    const rung = make("span", "olab-rung");
    const line = make("span", "olab-line");
    if (message.at) {
      const at = new Date(message.at);
      line.append(make("time", "olab-time", at.toLocaleTimeString([], { hour12: false }), { datetime: message.at }));
    }
    line.append(
      make("span", "olab-from", message.sender),
      make("span", "olab-arrow", "→", { "aria-label": "to" }),
      make("span", "olab-to", message.recipient),
      rung,
    );
    const text = message.content ?? "";
    const short = text.split("\n", 1)[0].slice(0, FOLDED);
    if (short === text) {
      element.append(line, make("span", "olab-text", text));
    } else {
      const folded = make("details", "olab-fold");
      const summary = make("summary", "olab-text", `${short} …`);
      folded.append(summary, make("pre", "olab-full", text));
      element.append(line, folded);
    }
    const row = { element, rung, facts: message };
    this.rows.set(message.message_id, row);
    this.update(row, message);
    this.show(row);
    this.list.append(element);
  }

  private update(row: Row, message: MessageFacts): void {
    row.facts = { ...row.facts, ...message };
    const status = row.facts.status ?? "unknown";
    setText(row.rung, status);
    row.rung.dataset.rung = status;
    row.rung.title = row.facts.error_message ?? "";
  }

  private sift(): void {
    for (const row of this.rows.values()) this.show(row);
  }

  private show(row: Row): void {
    const name = this.filter.value;
    row.element.hidden = name !== "" && row.facts.sender !== name && row.facts.recipient !== name;
  }
}
