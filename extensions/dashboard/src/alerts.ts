import { type Alert, LEVELS } from '../../shared/src/api';
import { clock } from '../../shared/src/words';
import { get } from './api';
import { button, h, replace } from './dom';

/** The alerts: open, acknowledged, resolved; by level. */
export class Alerts {
  readonly node = h('section', { class: 'alerts', 'aria-label': 'Alerts' });

  constructor(private act: (path: string[]) => void) {
    for (const level of LEVELS) {
      this.level.append(h('option', { value: level }, level === 'info' ? 'all' : `${level} and graver`));
    }
    for (const state of ['not resolved', 'open', 'acknowledged', 'resolved', 'all']) {
      this.state.append(h('option', { value: state }, state));
    }
    this.level.addEventListener('change', () => this.draw());
    this.state.addEventListener('change', () => this.draw());
    const clear = button('clear-alerts', 'Clear all', () => this.act(['clear']));
    this.node.append(
      h('div', { class: 'bar' }, h('label', {}, 'Level ', this.level), h('label', {}, 'State ', this.state), clear),
      this.list
    );
  }

  async open(cluster: string): Promise<void> {
    this.cluster = cluster;
    this.rows.clear();
    const { alerts } = await get<{ alerts: Alert[] }>(['clusters', cluster, 'alerts'], { state: 'all' });
    if (this.cluster === cluster) {
      alerts.forEach(row => this.rows.set(row.alert_id, row));
      this.draw();
    }
  }

  take(row: Alert): void {
    this.rows.set(row.alert_id, { ...this.rows.get(row.alert_id), ...row });
    this.draw();
  }

  private draw(): void {
    const least = LEVELS.indexOf(this.level.value);
    const rows = [...this.rows.values()]
      .filter(one => LEVELS.indexOf(one.level) >= least)
      .filter(one => {
        const state = one.resolved_at ? 'resolved' : one.acknowledged_at ? 'acknowledged' : 'open';
        const wanted = this.state.value;
        return wanted === 'all' || wanted === state || (wanted === 'not resolved' && state !== 'resolved');
      })
      .sort((a, b) => b.opened_at.localeCompare(a.opened_at));
    replace(
      this.list,
      ...rows.map(one => this.item(one)),
      rows.length === 0 && h('li', { class: 'faint' }, 'No alert of this kind.')
    );
  }

  private item(one: Alert): HTMLElement {
    const told = one.resolved_at ? 'resolved' : one.acknowledged_at ? 'acknowledged' : 'open';
    return h(
      'li',
      { class: `alert level-${one.level}` },
      h(
        'div',
        { class: 'bar' },
        h('strong', {}, one.level),
        h('span', {}, told),
        h('time', {}, clock(one.opened_at)),
        h('span', { class: 'faint' }, one.rule)
      ),
      h('p', { class: 'text' }, one.message),
      !one.resolved_at &&
        h(
          'div',
          { class: 'bar' },
          !one.acknowledged_at &&
            button(`ack ${one.alert_id}`, 'Acknowledge', () => this.act([one.alert_id, 'acknowledge'])),
          button(`resolve ${one.alert_id}`, 'Resolve', () => this.act([one.alert_id, 'resolve']))
        )
    );
  }

  private cluster = '';
  private rows = new Map<string, Alert>();
  private level = h('select', {});
  private state = h('select', {});
  private list = h('ul', { class: 'rows' });
}
