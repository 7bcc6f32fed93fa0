import { PathExt } from '@jupyterlab/coreutils';
import { ABCWidgetFactory, DocumentRegistry, DocumentWidget } from '@jupyterlab/docregistry';
import { Contents } from '@jupyterlab/services';
import { TranslationBundle } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { Widget } from '@lumino/widgets';
import { make } from '../../shared/src/dom';
import { offset, short } from '../../shared/src/words';
import { IRunSummary, MANIFEST, readManifest, summarise } from './run';

/** Largest journal that is summed up here, in bytes; a longer one is for `open_run`. */
const JOURNAL = 30e6;
/** Messages that are listed. */
const MESSAGES = 200;

/** Shows a run's folder, without a kernel: what ran, who wrote to whom, and the recordings of the panes. */
export class RunViewer extends Widget {
  constructor(
    private _context: DocumentRegistry.Context,
    private _contents: Contents.IManager,
    private _commands: CommandRegistry,
    private _trans: TranslationBundle,
    private _handOn: () => void
  ) {
    super();
    this.addClass('ol-run');
    this.node.tabIndex = -1;
    this.node.textContent = this._trans.__('Reading the run…');
    void this._context.ready.then(() => this._load());
  }

  private async _load(): Promise<void> {
    const folder = PathExt.dirname(this._context.path);
    const manifest = readManifest(this._context.model.toString());
    if (manifest === null) {
      if (PathExt.basename(this._context.path) === MANIFEST) {
        this._handOn();
        return;
      }
      this.node.replaceChildren(
        make('p', 'ol-problem', noManifest(this._context.path, this._trans))
      );
      return;
    }
    const [summary, problem] = await this._journal(folder);
    const casts = await this._listed(PathExt.join(folder, 'panes'));
    if (!this.isDisposed) {
      this.node.replaceChildren(...this._draw(folder, manifest, summary, problem, casts));
    }
  }

  private async _journal(folder: string): Promise<[IRunSummary | null, string | null]> {
    const path = PathExt.join(folder, 'journal.jsonl');
    try {
      const facts = await this._contents.get(path, { content: false });
      if ((facts.size ?? 0) > JOURNAL) {
        const size = Math.round((facts.size ?? 0) / 1e6);
        return [
          null,
          this._trans.__('The journal has %1 MB: open it in a notebook, with open_run.', size)
        ];
      }
      const model = await this._contents.get(path, { type: 'file', format: 'text', content: true });
      const summary = summarise(model.content as string, this._trans);
      return [summary, summary.problem];
    } catch (error) {
      return [null, this._trans.__('%1 cannot be read: %2', path, (error as Error).message)];
    }
  }

  private async _listed(path: string): Promise<string[]> {
    try {
      const model = await this._contents.get(path, { content: true });
      const all = (model.content as Contents.IModel[]).map(one => one.path);
      return all.filter(one => /\.cast(\.zst)?$/.test(one)).sort();
    } catch {
      return [];
    }
  }

  private _draw(
    folder: string,
    manifest: any,
    summary: IRunSummary | null,
    problem: string | null,
    casts: string[]
  ): HTMLElement[] {
    const trans = this._trans;
    const end = summary ? (summary.status ?? trans.__('no end recorded')) : '';
    const title = trans.__('Run %1: %2', manifest.name ?? '', end);
    const drawn: HTMLElement[] = [make('h2', '', title)];
    if (problem) {
      drawn.push(make('p', 'ol-problem', problem));
    }
    const facts: [string, string | null][] = [
      [trans.__('Run'), manifest.run_id],
      [trans.__('Started'), String(manifest.started_at ?? '')],
      [trans.__('Experiment'), manifest.experiment ?? null],
      [trans.__('Tags'), (manifest.tags ?? []).join(', ') || null],
      [
        trans.__('Seed'),
        manifest.seed === null || manifest.seed === undefined ? null : String(manifest.seed)
      ],
      [trans.__('Version'), manifest.versions?.orchestrator_lab ?? null]
    ];
    if (summary) {
      facts.push(
        [trans.__('Duration'), summary.duration === null ? null : offset(summary.duration)],
        [trans.__('Turns'), String(summary.turns)],
        [
          trans.__('Tokens in, out'),
          `${summary.inputTokens ?? trans.__('unknown')}, ${summary.outputTokens ?? trans.__('unknown')}`
        ],
        [trans.__('Dialogs'), String(summary.dialogs)],
        [trans.__('Alerts'), String(summary.alerts)],
        [trans.__('Events'), String(summary.events)]
      );
    }
    const list = make('dl', 'ol-facts');
    for (const [name, value] of facts) {
      if (value !== null && value !== '') {
        list.append(make('dt', '', name), make('dd', '', value));
      }
    }
    drawn.push(list);
    const byName = new Map(
      casts.map(path => [PathExt.basename(path).replace(/\.cast(\.zst)?$/, ''), path])
    );
    drawn.push(make('h3', '', trans.__('Agents')));
    const agents = summary?.agents ?? [...byName.keys()].map(name => ({ name }) as any);
    const rows = agents.map((one: any) => {
      const path = byName.get(one.name);
      byName.delete(one.name);
      return [
        one.name,
        one.kind ?? '',
        one.role ?? '',
        one.turns ?? '',
        one.messages ?? '',
        this._link(path)
      ];
    });
    for (const [name, path] of byName) {
      rows.push([name, '', '', '', '', this._link(path)]);
    }
    drawn.push(
      table(
        [
          trans.__('name'),
          trans.__('kind'),
          trans.__('role'),
          trans.__('turns'),
          trans.__('messages'),
          trans.__('recording')
        ],
        rows
      )
    );
    if (summary) {
      const shown = summary.messages.slice(0, MESSAGES);
      drawn.push(make('h3', '', trans.__('Messages (%1)', summary.messages.length)));
      drawn.push(
        table(
          [trans.__('at'), trans.__('from'), trans.__('to'), trans.__('status'), trans.__('text')],
          shown.map(one => [
            one.at.slice(11, 19),
            one.sender,
            one.recipient,
            one.status,
            short(one.content, 300)
          ])
        )
      );
      if (shown.length < summary.messages.length) {
        const rest = summary.messages.length - shown.length;
        drawn.push(
          make(
            'p',
            'ol-faint',
            trans.__('%1 more; all of them are in %2', rest, `open_run("${folder}").messages`)
          )
        );
      }
    }
    return drawn;
  }

  private _link(path: string | undefined): HTMLElement {
    if (!path) {
      return make('span', 'ol-faint', this._trans.__('none'));
    }
    const made = make('button', 'ol-button', this._trans.__('Open'));
    made.type = 'button';
    made.title = path;
    made.addEventListener('click', () => void this._commands.execute('docmanager:open', { path }));
    return made;
  }
}

function table(head: string[], rows: (string | number | HTMLElement)[][]): HTMLElement {
  const drawn = make('table', 'ol-table');
  const top = make('tr');
  for (const name of head) {
    const cell = make('th', '', name);
    cell.scope = 'col';
    top.append(cell);
  }
  const body = make('tbody');
  for (const row of rows) {
    const line = make('tr');
    for (const value of row) {
      const cell = make('td');
      cell.append(typeof value === 'number' ? String(value) : value);
      line.append(cell);
    }
    body.append(line);
  }
  const header = make('thead');
  header.append(top);
  drawn.append(header, body);
  return drawn;
}

/** Says that a file is no run's manifest. */
export function noManifest(path: string, trans: TranslationBundle): string {
  return trans.__('%1 is no manifest of a run of Orchestrator Lab', path);
}

/** Makes viewers of runs. */
export class RunFactory extends ABCWidgetFactory<DocumentWidget<RunViewer>> {
  constructor(
    options: DocumentRegistry.IWidgetFactoryOptions<DocumentWidget<RunViewer>>,
    private _contents: Contents.IManager,
    private _commands: CommandRegistry,
    private _trans: TranslationBundle,
    private _others: (path: string) => string | undefined
  ) {
    super(options);
  }

  protected createNewWidget(context: DocumentRegistry.Context): DocumentWidget<RunViewer> {
    // Other programs have manifests too: those are shown as they would be without this viewer.
    const handOn = () => {
      const { path } = context;
      void this._commands
        .execute('docmanager:open', { path, factory: this._others(path) })
        .finally(() => widget.close());
    };
    const content = new RunViewer(context, this._contents, this._commands, this._trans, handOn);
    const widget = new DocumentWidget({ context, content });
    return widget;
  }
}
