import { JupyterFrontEnd } from '@jupyterlab/application';
import {
  Dialog,
  InputDialog,
  MainAreaWidget,
  Notification,
  showDialog
} from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { FileDialog, IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { TranslationBundle } from '@jupyterlab/translation';
import { IFrame } from '@jupyterlab/ui-components';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { Api } from './api';
import { Widget } from '@lumino/widgets';
import { agentsIcon } from './icons';
import { ClustersModel } from './model';
import { MANIFEST, readManifest } from './run';
import { noManifest } from './runviewer';

export namespace CommandIDs {
  export const dashboard = 'orchestrator-lab:dashboard';
  export const dashboardTab = 'orchestrator-lab:dashboard-browser';
  export const openCluster = 'orchestrator-lab:open-cluster';
  export const watch = 'orchestrator-lab:watch-agent';
  export const takeOver = 'orchestrator-lab:take-over-agent';
  export const send = 'orchestrator-lab:send';
  export const interrupt = 'orchestrator-lab:interrupt';
  export const stopAgent = 'orchestrator-lab:stop-agent';
  export const shutdown = 'orchestrator-lab:shutdown';
  export const answer = 'orchestrator-lab:answer';
  export const acknowledge = 'orchestrator-lab:acknowledge-alert';
  export const resolve = 'orchestrator-lab:resolve-alert';
  export const clearAlerts = 'orchestrator-lab:clear-alerts';
  export const refresh = 'orchestrator-lab:refresh';
  export const showPanel = 'orchestrator-lab:show-panel';
  export const openRun = 'orchestrator-lab:open-run';
}

/** What the commands work on. */
export interface ICommandContext {
  app: JupyterFrontEnd;
  api: Api;
  model: ClustersModel;
  trans: TranslationBundle;
  panelId: string;
  browser: IDefaultFileBrowser | null;
  /** Whether "open terminal here" may type, by the settings. */
  readOnly: () => boolean;
}

type Args = ReadonlyPartialJSONObject;

/** Commands that the palette offers, in this order. */
export const PALETTE = [
  CommandIDs.dashboard,
  CommandIDs.dashboardTab,
  CommandIDs.showPanel,
  CommandIDs.watch,
  CommandIDs.takeOver,
  CommandIDs.send,
  CommandIDs.interrupt,
  CommandIDs.stopAgent,
  CommandIDs.shutdown,
  CommandIDs.clearAlerts,
  CommandIDs.refresh,
  CommandIDs.openRun
];

export function addCommands(context: ICommandContext): void {
  const { app, api, model, trans } = context;
  const commands = app.commands;

  /** The cluster and agent that a command is about; asked for when its arguments do not say. */
  async function agentOf(args: Args, title: string): Promise<[string, string] | null> {
    if (typeof args.cluster === 'string' && typeof args.agent === 'string') {
      return [args.cluster, args.agent];
    }
    const all = model.clusters.flatMap(one =>
      (one.status?.agents ?? []).map(agent => [one.facts.name, agent.name] as [string, string])
    );
    const place = await chosen(
      title,
      all.map(([cluster, agent]) => `${cluster} / ${agent}`),
      trans.__('No agent runs on this machine')
    );
    return place === null ? null : all[place];
  }

  async function clusterOf(args: Args, title: string): Promise<string | null> {
    if (typeof args.cluster === 'string') {
      return args.cluster;
    }
    const names = model.clusters.map(one => one.facts.name);
    const place = await chosen(title, names, trans.__('No cluster runs on this machine'));
    return place === null ? null : names[place];
  }

  function add(
    id: string,
    label: string | ((args: Args) => string),
    caption: string,
    execute: (args: Args) => unknown,
    icon = false
  ): void {
    commands.addCommand(id, {
      label,
      caption,
      icon: icon ? agentsIcon : undefined,
      describedBy: { args: { type: 'object', additionalProperties: true } },
      execute: async (args: Args) => {
        try {
          return await execute(args);
        } catch (problem) {
          Notification.error((problem as Error).message, { autoClose: 10000 });
          return null;
        }
      }
    });
  }

  let page: MainAreaWidget<IFrame> | null = null;

  /** Show the dashboard's page in a tab, at a cluster when one is named. */
  function showPage(cluster: string | null): void {
    const url = api.pageUrl + (cluster ? `#cluster=${encodeURIComponent(cluster)}` : '');
    if (!page || page.isDisposed) {
      const content = new IFrame({
        // Links that agents print open in a tab of their own, which is no part of this page.
        // JupyterLab's list of words has the last one without its 'allow-', which browsers do not know.
        sandbox: [
          'allow-same-origin',
          'allow-scripts',
          'allow-forms',
          'allow-modals',
          'allow-popups',
          'allow-popups-to-escape-sandbox'
        ] as string[] as IFrame.SandboxExceptions[]
      });
      page = new MainAreaWidget({ content });
      page.id = 'orchestrator-lab-dashboard';
      page.title.label = trans.__('Agent clusters');
      page.title.icon = agentsIcon;
      page.title.closable = true;
      app.shell.add(page, 'main');
    }
    page.content.url = url;
    app.shell.activateById(page.id);
  }

  async function terminal(args: Args, takeOver: boolean): Promise<void> {
    const title = takeOver ? trans.__('Take over which agent?') : trans.__('Watch which agent?');
    const agent = await agentOf(args, title);
    if (agent) {
      const name = await api.terminal(agent[0], agent[1], takeOver);
      await commands.execute('terminal:open', { name });
    }
  }

  add(
    CommandIDs.dashboard,
    args => (args.isLauncher ? trans.__('Agent Clusters') : trans.__('Open Agent Dashboard')),
    trans.__('Clusters of agents: panes, messages, states, alerts'),
    () => showPage(null),
    true
  );
  add(
    CommandIDs.dashboardTab,
    trans.__('Open Agent Dashboard in New Browser Tab'),
    trans.__('The same page, outside of JupyterLab'),
    () => void window.open(api.pageUrl, '_blank', 'noopener')
  );
  add(
    CommandIDs.openCluster,
    trans.__('Open Cluster'),
    trans.__('Show a cluster in the dashboard'),
    async args => {
      const cluster = await clusterOf(args, trans.__('Open which cluster?'));
      if (cluster) {
        showPage(cluster);
      }
    }
  );
  add(
    CommandIDs.watch,
    trans.__('Open Terminal at Agent…'),
    trans.__("A terminal attached to an agent's pane, read-only unless the settings say otherwise"),
    args => terminal(args, !context.readOnly())
  );
  add(
    CommandIDs.takeOver,
    trans.__('Take Over Agent in Terminal…'),
    trans.__("A terminal attached to an agent's pane in which you type to it"),
    args => terminal(args, true)
  );
  add(
    CommandIDs.send,
    trans.__('Send Message to Agent…'),
    trans.__('Type a message to an agent'),
    async args => {
      const agent = await agentOf(args, trans.__('Send to which agent?'));
      if (!agent) {
        return;
      }
      const text =
        typeof args.text === 'string'
          ? args.text
          : (
              await showDialog<string>({
                title: trans.__('Message to %1 (%2)', agent[1], agent[0]),
                body: new TextBody(trans.__('Message')),
                focusNodeSelector: 'textarea',
                buttons: [
                  Dialog.cancelButton({ label: trans.__('Cancel') }),
                  Dialog.okButton({ label: trans.__('Send') })
                ]
              })
            ).value;
      if (text?.trim()) {
        await api.post(['clusters', agent[0], 'messages'], { to: agent[1], text });
      }
    }
  );
  add(
    CommandIDs.interrupt,
    trans.__('Interrupt Agent…'),
    trans.__("End an agent's turn"),
    async args => {
      const agent = await agentOf(args, trans.__('Interrupt which agent?'));
      if (agent) {
        await api.post(['clusters', agent[0], 'agents', agent[1], 'interrupt']);
      }
    }
  );
  add(
    CommandIDs.stopAgent,
    trans.__('Stop Agent…'),
    trans.__("End an agent's program"),
    async args => {
      const agent = await agentOf(args, trans.__('Stop which agent?'));
      if (agent) {
        await api.post(['clusters', agent[0], 'agents', agent[1], 'stop']);
      }
    }
  );
  add(
    CommandIDs.shutdown,
    trans.__('Shut Down Cluster…'),
    trans.__('End a cluster and its agents'),
    async args => {
      const cluster = await clusterOf(args, trans.__('Shut down which cluster?'));
      if (!cluster) {
        return;
      }
      if (args.confirmed !== true) {
        const answer = await showDialog({
          title: trans.__('Shut down cluster %1?', cluster),
          body: trans.__('Its agents are ended. The recorded run stays.'),
          buttons: [
            Dialog.cancelButton({ label: trans.__('Cancel') }),
            Dialog.warnButton({ label: trans.__('Shut Down') })
          ]
        });
        if (!answer.button.accept) {
          return;
        }
      }
      await api.post(['clusters', cluster, 'shutdown']);
    }
  );
  add(
    CommandIDs.answer,
    trans.__('Answer Dialog'),
    trans.__("Choose an option of an agent's question"),
    args =>
      api.answer(String(args.cluster), String(args.agent), String(args.dialog), Number(args.option))
  );
  add(
    CommandIDs.acknowledge,
    trans.__('Acknowledge Alert'),
    trans.__('Say that you have seen an alert'),
    args =>
      api.post(['clusters', String(args.cluster), 'alerts', String(args.alert), 'acknowledge'])
  );
  add(CommandIDs.resolve, trans.__('Resolve Alert'), trans.__('Close an alert'), args =>
    api.post(['clusters', String(args.cluster), 'alerts', String(args.alert), 'resolve'])
  );
  add(
    CommandIDs.clearAlerts,
    trans.__('Clear All Alerts…'),
    trans.__('Close all alerts of a cluster'),
    async args => {
      const cluster = await clusterOf(args, trans.__('Clear the alerts of which cluster?'));
      if (cluster) {
        await api.post(['clusters', cluster, 'alerts', 'clear']);
      }
    }
  );
  add(
    CommandIDs.refresh,
    trans.__('Refresh Agent Clusters'),
    trans.__('Look for clusters now'),
    () => model.refresh()
  );
  add(
    CommandIDs.showPanel,
    trans.__('Show Agent Clusters'),
    trans.__('The side panel with states and alerts'),
    () => app.shell.activateById(context.panelId)
  );
  add(
    CommandIDs.openRun,
    trans.__('Open Run…'),
    trans.__("Show the summary of a run's folder"),
    async args => {
      const selected = context.browser?.selectedItems().next();
      let folder =
        typeof args.path === 'string'
          ? args.path
          : selected && !selected.done && selected.value.type === 'directory'
            ? selected.value.path
            : null;
      if (folder === null && context.browser) {
        const result = await FileDialog.getExistingDirectory({
          manager: context.browser.model.manager,
          title: trans.__("Folder of a run (it holds 'manifest.json')")
        });
        folder = result.button.accept ? (result.value?.[0]?.path ?? null) : null;
      }
      if (folder === null) {
        return null;
      }
      const path = PathExt.join(folder, MANIFEST);
      const file = await app.serviceManager.contents.get(path, {
        type: 'file',
        format: 'text',
        content: true
      });
      if (readManifest(file.content as string) === null) {
        throw new Error(noManifest(path, trans));
      }
      return commands.execute('docmanager:open', { path, factory: RUN_FACTORY });
    }
  );
}

/** Names of the document factories. */
export const RUN_FACTORY = 'Agent Run';
export const CAST_FACTORY = 'Pane Recording';
export const PACKED_CAST_FACTORY = 'Packed Pane Recording';

/** A text of several lines; Enter begins a new one. */
class TextBody extends Widget implements Dialog.IBodyWidget<string> {
  constructor(label: string) {
    super({ node: document.createElement('textarea') });
    const node = this.node as HTMLTextAreaElement;
    node.rows = 6;
    node.cols = 60;
    node.setAttribute('aria-label', label);
    node.addEventListener('keydown', event => {
      if (event.key === 'Enter' && !event.ctrlKey && !event.metaKey) {
        event.stopPropagation();
      }
    });
  }

  getValue(): string {
    return (this.node as HTMLTextAreaElement).value;
  }
}

/** Let the user choose one of several; the only one is taken without asking. */
async function chosen(title: string, items: string[], none: string): Promise<number | null> {
  if (items.length === 0) {
    throw new Error(none);
  }
  if (items.length === 1) {
    return 0;
  }
  const answer = await InputDialog.getItem({ title, items });
  const place = answer.button.accept && answer.value !== null ? items.indexOf(answer.value) : -1;
  return place < 0 ? null : place;
}
