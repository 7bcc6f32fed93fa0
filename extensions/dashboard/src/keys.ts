/** Letters that go with one request at most; a longer paste goes alone, and the server says when it is too long. */
const MOST = 16384;

/**
 * Types into panes: one request at a time for each, and what is typed meanwhile goes with the next one.
 *
 * Requests that are under way at the same time may overtake each other. After one that failed, the rest would be typed
 * into a screen that nobody expects: it is dropped.
 */
export class Keys {
  private post: (agent: string, data: string) => Promise<unknown>;
  private failed: (agent: string, problem: Error) => void;

  constructor(
    post: (agent: string, data: string) => Promise<unknown>,
    failed: (agent: string, problem: Error) => void
  ) {
    this.post = post;
    this.failed = failed;
  }

  type(agent: string, data: string): void {
    const waiting = this.waiting.get(agent);
    if (waiting) {
      waiting.push(data);
    } else {
      this.waiting.set(agent, [data]);
      void this.send(agent);
    }
  }

  private async send(agent: string): Promise<void> {
    const waiting = this.waiting.get(agent)!;
    try {
      while (waiting.length > 0) {
        let data = waiting.shift()!;
        while (waiting.length > 0 && data.length + waiting[0].length <= MOST) {
          data += waiting.shift()!;
        }
        await this.post(agent, data);
      }
    } catch (problem) {
      // The view lets the pane go at once: nothing is typed between this and the end of the queue.
      this.failed(agent, problem as Error);
    } finally {
      this.waiting.delete(agent);
    }
  }

  /** What waits, for each pane that has a request under way. */
  private waiting = new Map<string, string[]>();
}
