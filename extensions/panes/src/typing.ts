interface Typed {
  agent: string;
  data: string;
}

/**
 * Keys on their way to the host: one message at a time, what is typed meanwhile waits here. A host that does not listen
 * finds at most that one message when it does again, and what it meets then may be another screen.
 */
export class Typing {
  private readonly send: (agent: string, data: string) => number | null;
  private waiting: Typed[] = [];
  private sent: number | null = null;

  /** `send` returns the number of its message, null if the host answers none. */
  constructor(send: (agent: string, data: string) => number | null) {
    this.send = send;
  }

  type(agent: string, data: string): void {
    const last = this.waiting[this.waiting.length - 1];
    if (last?.agent === agent) last.data += data;
    else this.waiting.push({ agent, data });
    this.next();
  }

  answered(number: number): void {
    if (this.sent === null || number < this.sent) return;
    this.sent = null;
    this.next();
  }

  /** Whether a message is on its way. */
  get underway(): boolean {
    return this.sent !== null;
  }

  /** Forgets what waits; returns to whom it was typed. */
  discard(): string[] {
    const agents = this.waiting.map((typed) => typed.agent);
    this.waiting = [];
    return agents;
  }

  private next(): void {
    while (this.sent === null && this.waiting.length) {
      const { agent, data } = this.waiting.shift()!;
      this.sent = this.send(agent, data);
    }
  }
}
