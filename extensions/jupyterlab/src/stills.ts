import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { DocumentRegistry } from '@jupyterlab/docregistry';
import type * as nbformat from '@jupyterlab/nbformat';
import { DisposableDelegate, IDisposable } from '@lumino/disposable';
import { Panel, Widget } from '@lumino/widgets';

/** What is used here of a notebook's outputs: nothing that would need the notebook's own packages to build. */
interface IOutputArea {
  model: { get(index: number): { data: Record<string, unknown>; trusted: boolean } };
  widgets: readonly Widget[];
}

interface INotebookPanel extends Widget {
  content: Widget & {
    widgets: readonly (Widget & { outputArea?: IOutputArea })[];
    rendermime: {
      createRenderer(mimeType: string): Widget & { renderModel(model: unknown): Promise<void> };
      createModel(options: { data: object; trusted: boolean }): unknown;
    };
  };
  revealed: Promise<void>;
}

/** What the widget manager writes into the place of a widget whose kernel is gone. */
const LOST = 'Error displaying widget: model not found';
/** What the still of a view begins with. */
const MARK = 'class="orchestrator-lab-still"';
const OUTPUT = 'jp-OutputArea-output';

/**
 * Show the still that lies beside a widget in the file, where the widget itself is lost.
 *
 * A notebook that was saved while a view was live keeps the view's address: who trusts it would see an error only.
 */
async function showStill(
  panel: INotebookPanel,
  area: IOutputArea,
  index: number,
  lost: Widget
): Promise<void> {
  const output = area.model.get(index);
  const html = output.data['text/html'];
  const place = area.widgets[index];
  if (html === undefined || !(place instanceof Panel) || lost.isHidden) {
    return;
  }
  lost.hide();
  const rendermime = panel.content.rendermime;
  const still = rendermime.createRenderer('text/html');
  await still.renderModel(
    rendermime.createModel({ data: { 'text/html': html }, trusted: output.trusted })
  );
  still.addClass(OUTPUT);
  if (!place.isDisposed && lost.parent === place) {
    place.addWidget(still);
  }
}

/** The newest still of the live view in an output, as far as the kernel has told it. */
function newest(place: Widget | undefined): string {
  const view = place?.node.querySelector('.olab-view') as
    (Element & { orchestratorLab?: { stillHtml?: () => string } }) | null | undefined;
  return view?.orchestratorLab?.stillHtml?.() ?? '';
}

/**
 * Write the panes of live views into the file as they are when it is saved, not as they were when the cell ran.
 *
 * In the notebook itself the outputs stay: a change there would draw the views anew.
 */
function keepStills(panel: INotebookPanel, model: DocumentRegistry.IModel): void {
  const toJSON = model.toJSON.bind(model);
  model.toJSON = () => {
    const content = toJSON() as unknown as nbformat.INotebookContent;
    panel.content.widgets.forEach((cell, number) => {
      const outputs = content.cells[number]?.outputs;
      if (!cell.outputArea || !Array.isArray(outputs)) {
        return;
      }
      (outputs as { data?: nbformat.IMimeBundle }[]).forEach((output, index) => {
        const still = newest(cell.outputArea?.widgets[index]);
        if (still && output.data && String(output.data['text/html']).includes(MARK)) {
          output.data['text/html'] = still;
        }
      });
    });
    return content as unknown as ReturnType<typeof toJSON>;
  };
}

function look(panel: INotebookPanel): void {
  for (const cell of panel.content.widgets) {
    const area = cell.outputArea;
    area?.widgets.forEach((place, index) => {
      for (const child of place instanceof Panel ? place.widgets : []) {
        if (child.node.textContent === LOST) {
          void showStill(panel, area, index, child);
        }
      }
    });
  }
}

function watch(panel: INotebookPanel): IDisposable {
  const observer = new MutationObserver(changes => {
    const lost = changes.some(
      change =>
        change.target instanceof HTMLElement &&
        change.target.classList.contains(OUTPUT) &&
        change.target.textContent === LOST
    );
    if (lost) {
      look(panel);
    }
  });
  observer.observe(panel.content.node, { childList: true, subtree: true });
  void panel.revealed.then(() => look(panel));
  return new DisposableDelegate(() => observer.disconnect());
}

/** Stills in the place of live views that are gone, and new ones in the file while they live. */
export const stills: JupyterFrontEndPlugin<void> = {
  id: 'orchestrator-lab:stills',
  description:
    'In saved notebooks, the still of a live view, up to date, and shown when its kernel is gone.',
  autoStart: true,
  activate: (app: JupyterFrontEnd): void => {
    app.docRegistry.addWidgetExtension('Notebook', {
      createNew: (widget, context) => {
        const panel = widget as unknown as INotebookPanel;
        keepStills(panel, context.model);
        return watch(panel);
      }
    });
  }
};
