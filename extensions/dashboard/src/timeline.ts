import type { Status } from '../../shared/src/api';
import { MARKS, ago, clock, marked } from '../../shared/src/words';
import { get } from './api';
import { h, svg } from './dom';

interface Interval {
  agent: string;
  state: string;
  from: number;
  to: number | null;
}

const ROW = 26;
const LEFT = 110;
const WIDTH = 1000;
const SPANS: [string, number][] = [
  ['5 minutes', 300],
  ['30 minutes', 1800],
  ['4 hours', 14400],
  ['all', 0]
];

/** Which state each agent was in, over time. */
export class Timeline {
  readonly node = h('section', { class: 'timeline', 'aria-label': 'States over time' });

  constructor() {
    for (const [name, seconds] of SPANS) {
      this.span.append(h('option', { value: seconds }, name));
    }
    this.span.addEventListener('change', () => this.draw());
    const legend = h('ul', { class: 'legend' });
    for (const state of Object.keys(MARKS)) {
      legend.append(
        h('li', { class: `state-${state}` }, h('span', { class: 'swatch', 'aria-hidden': 'true' }, ''), marked(state))
      );
    }
    this.node.append(h('div', { class: 'bar' }, h('label', {}, 'Show ', this.span), legend), this.picture, this.table);
  }

  async open(cluster: string): Promise<void> {
    this.cluster = cluster;
    this.intervals = [];
    const page = await get<{ rows: any[] }>(['clusters', cluster, 'tables', 'states'], { limit: '5000' });
    if (this.cluster === cluster) {
      const later = this.intervals;
      this.intervals = page.rows.map(row => ({
        agent: row.agent,
        state: row.state,
        from: instant(row.started_at),
        to: row.ended_at ? instant(row.ended_at) : null
      }));
      later
        .filter(one => one.from > Math.max(0, ...this.intervals.map(known => known.from)))
        .forEach(one => this.begin(one));
      this.draw();
    }
  }

  /** Take in a change of state, as the journal tells it. */
  take(event: any): void {
    if (event.event === 'agent.state' && event.agent) {
      this.begin({ agent: event.agent, state: event.attributes.state, from: instant(event.at), to: null });
    }
  }

  setStatus(status: Status): void {
    this.names = status.agents.map(one => one.name);
  }

  draw(): void {
    const now = Date.now() / 1000;
    const names = [...new Set([...this.names, ...this.intervals.map(one => one.agent)])];
    const first = Math.min(now - 1, ...this.intervals.map(one => one.from));
    const wanted = Number(this.span.value);
    const begin = wanted ? Math.max(now - wanted, Math.min(first, now - 10)) : first;
    const scale = (at: number) => LEFT + ((Math.max(at, begin) - begin) / (now - begin)) * (WIDTH - LEFT);
    const height = names.length * ROW + 24;
    const picture = svg('svg', {
      viewBox: `0 0 ${WIDTH} ${height}`,
      role: 'img',
      'aria-label': `States of ${names.length} agents`
    });
    const sums = new Map<string, Map<string, number>>();
    names.forEach((name, row) => {
      picture.append(
        svg('text', { x: 0, y: row * ROW + 17, class: 'name' }, name.length > 15 ? name.slice(0, 14) + '…' : name)
      );
    });
    for (const one of this.intervals) {
      const to = one.to ?? now;
      if (to < begin) {
        continue;
      }
      const sum = sums.get(one.agent) ?? new Map<string, number>();
      sums.set(one.agent, sum.set(one.state, (sum.get(one.state) ?? 0) + to - Math.max(one.from, begin)));
      const x = scale(one.from);
      const title = `${one.agent}: ${one.state} for ${ago(to - one.from)}, from ${clock(new Date(one.from * 1000).toISOString())}`;
      picture.append(
        svg(
          'rect',
          {
            x: x.toFixed(1),
            y: names.indexOf(one.agent) * ROW + 4,
            width: Math.max(0.8, scale(to) - x).toFixed(1),
            height: ROW - 8,
            class: `interval state-${one.state}`
          },
          svg('title', {}, title)
        )
      );
    }
    for (const part of [0, 0.5, 1]) {
      const at = new Date((begin + (now - begin) * part) * 1000).toISOString();
      picture.append(
        svg(
          'text',
          {
            x: scale(begin + (now - begin) * part),
            y: height - 4,
            class: 'tick',
            'text-anchor': part === 0 ? 'start' : part === 1 ? 'end' : 'middle'
          },
          clock(at)
        )
      );
    }
    this.picture.replaceChildren(picture);
    const rows = names.map(name =>
      h(
        'tr',
        {},
        h('th', { scope: 'row' }, name),
        h('td', {}, [...(sums.get(name) ?? [])].map(([state, s]) => `${state} ${ago(s)}`).join(', '))
      )
    );
    const open = this.table.querySelector('details')?.open ?? false;
    this.table.replaceChildren(
      h('details', open ? { open: true } : {}, h('summary', {}, 'As a table'), h('table', {}, h('tbody', {}, ...rows)))
    );
  }

  private begin(one: Interval): void {
    for (const open of this.intervals) {
      if (open.agent === one.agent && open.to === null) {
        if (open.from >= one.from) {
          return;
        }
        open.to = one.from;
      }
    }
    this.intervals.push(one);
  }

  private cluster = '';
  private names: string[] = [];
  private intervals: Interval[] = [];
  private span = h('select', {});
  private picture = h('div', { class: 'picture' });
  private table = h('div', {});
}

/** Epoch seconds of an instant, which the API tells as text or as a number. */
export function instant(value: string | number): number {
  return typeof value === 'number' ? value : Date.parse(value) / 1000;
}
