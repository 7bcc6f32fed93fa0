import { bytes, clock, count } from '../../shared/src/words';
import { get } from './api';
import { h, svg } from './dom';
import { instant } from './timeline';

interface Series {
  name: string;
  points: [number, number][];
}

const WIDTH = 460;
const HEIGHT = 150;
const LEFT = 56;
/** Milliseconds between two readings while the page shows them. */
const EACH = 4000;

/** What the agents cost: processor, memory, tokens and messages over time. */
export class Metrics {
  readonly node = h('section', { class: 'metrics', 'aria-label': 'Metrics' });

  constructor() {
    this.node.append(this.totals, this.charts);
  }

  async open(cluster: string): Promise<void> {
    this.cluster = cluster;
    this.read = 0;
    await this.refresh();
  }

  /** Read again what is shown, unless that was a moment ago. */
  async refresh(): Promise<void> {
    const cluster = this.cluster;
    if (Date.now() - this.read < EACH) {
      return;
    }
    this.read = Date.now();
    const [metrics, turns] = await Promise.all([
      get<{ figures: any; samples: any[] }>(['clusters', cluster, 'metrics'], { samples: '3000' }),
      get<{ rows: any[]; total: number }>(['clusters', cluster, 'tables', 'turns'], { limit: '2000' })
    ]);
    if (this.cluster === cluster) {
      this.draw(metrics.figures, metrics.samples, turns.rows, turns.total);
    }
  }

  private draw(figures: any, samples: any[], turns: any[], total: number): void {
    const by = (key: string): Series[] => {
      const series = new Map<string, [number, number][]>();
      for (const one of samples) {
        if (one[key] !== null) {
          const points = series.get(one.agent) ?? [];
          points.push([instant(one.at), one[key]]);
          series.set(one.agent, points);
        }
      }
      return [...series].map(([name, points]) => ({ name, points }));
    };
    const ended = turns.filter(one => one.ended_at).sort((a, b) => instant(a.ended_at) - instant(b.ended_at));
    const running = (name: string, of: (row: any) => number): Series => {
      let sum = 0;
      return { name, points: ended.map(row => [instant(row.ended_at), (sum += of(row))]) };
    };
    const messages = figures.messages ?? {};
    const facts: [string, string][] = [
      ['turns', count(total)],
      ...Object.entries(messages).map(([rung, n]) => [`messages ${rung}`, count(n as number)] as [string, string]),
      ...['supervisor', 'keeper'].flatMap(name => {
        const one = figures.processes?.[name];
        return one
          ? ([[name, `${bytes(one.rss_bytes)}, ${count(one.cpu_s)} s of processor`]] as [string, string][])
          : [];
      })
    ];
    this.totals.replaceChildren(...facts.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
    this.charts.replaceChildren(
      chart('Processor, % of a core', by('cpu_percent'), value => count(value)),
      chart('Memory', by('rss_bytes'), bytes),
      chart(
        'Tokens, summed',
        [running('input', row => row.input_tokens ?? 0), running('output', row => row.output_tokens ?? 0)],
        count
      ),
      chart('Turns, summed', [running('turns', () => 1)], count)
    );
  }

  private cluster = '';
  private read = 0;
  private totals = h('dl', { class: 'facts' });
  private charts = h('div', { class: 'charts' });
}

/** A picture of a few series over time, with its last values in words. */
function chart(title: string, series: Series[], say: (value: number) => string): HTMLElement {
  const drawn = series.filter(one => one.points.length > 0);
  const last = drawn.map(one => `${one.name} ${say(one.points[one.points.length - 1][1])}`).join(', ');
  const figure = h(
    'figure',
    {},
    h('figcaption', {}, h('strong', {}, title), h('span', { class: 'faint' }, last || 'nothing was measured yet'))
  );
  if (drawn.length === 0) {
    return figure;
  }
  const times = drawn.flatMap(one => one.points.map(point => point[0]));
  const begin = Math.min(...times);
  // A figure is told again when it changes: the last one holds until now.
  const end = Math.max(Date.now() / 1000, ...times, begin + 1);
  const most = Math.max(...drawn.flatMap(one => one.points.map(point => point[1])), 1e-9);
  const x = (at: number) => LEFT + ((at - begin) / (end - begin)) * (WIDTH - LEFT - 6);
  const y = (value: number) => 8 + (1 - value / most) * (HEIGHT - 30);
  const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': `${title}: ${last}` });
  for (const value of [0, most / 2, most]) {
    picture.append(
      svg('line', { x1: LEFT, x2: WIDTH - 6, y1: y(value), y2: y(value), class: 'grid' }),
      svg('text', { x: LEFT - 6, y: y(value) + 4, class: 'tick', 'text-anchor': 'end' }, say(value))
    );
  }
  for (const [at, anchor] of [
    [begin, 'start'],
    [end, 'end']
  ] as const) {
    picture.append(
      svg(
        'text',
        { x: x(at), y: HEIGHT - 4, class: 'tick', 'text-anchor': anchor },
        clock(new Date(at * 1000).toISOString())
      )
    );
  }
  drawn.forEach((one, place) => {
    const held = one.points.flatMap(([at, value], place, all): [number, number][] => [
      [at, value],
      [all[place + 1]?.[0] ?? end, value]
    ]);
    const points = held.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
    const [at, value] = held[held.length - 1];
    picture.append(
      svg('polyline', { points, class: `line line-${place % 6}` }, svg('title', {}, one.name)),
      svg('circle', { cx: x(at), cy: y(value), r: 2.5, class: `dot line-${place % 6}` })
    );
  });
  const names = h('ul', { class: 'legend' });
  drawn.forEach((one, place) =>
    names.append(
      h('li', { class: `line-${place % 6}` }, h('span', { class: 'swatch', 'aria-hidden': 'true' }, ''), one.name)
    )
  );
  figure.append(picture, names);
  return figure;
}
