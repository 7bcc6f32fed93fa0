import {
  ILabShell,
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, WidgetTracker } from '@jupyterlab/apputils';
import { DocumentWidget } from '@jupyterlab/docregistry';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';
import { Token } from '@lumino/coreutils';
import { Api } from './api';
import { CastFactory, CastViewer } from './castviewer';
import {
  addCommands,
  CAST_FACTORY,
  CommandIDs,
  PACKED_CAST_FACTORY,
  PALETTE,
  RUN_FACTORY
} from './commands';
import { agentsIcon } from './icons';
import { ClustersModel } from './model';
import { INotifySettings, Notifier } from './notify';
import { StatesPanel } from './panel';
import { RunningClusters } from './running';
import { RunFactory, RunViewer } from './runviewer';
import { StatusItem } from './status';
import { stills } from './stills';

const PLUGIN = 'orchestrator-lab:plugin';
/** Under which translations are looked for. */
const DOMAIN = 'orchestrator_lab';

/** The clusters of this machine, for other extensions. */
export const IClusters = new Token<ClustersModel>(
  'orchestrator-lab:IClusters',
  'The agent clusters of this machine and what changes in them.'
);

/** Clusters while they run: panel, status bar, notifications, commands. */
const live: JupyterFrontEndPlugin<ClustersModel> = {
  id: PLUGIN,
  description: 'Agent clusters: running panel, states and alerts, notifications, terminals.',
  autoStart: true,
  provides: IClusters,
  requires: [ISettingRegistry],
  optional: [
    ICommandPalette,
    ILauncher,
    IRunningSessionManagers,
    IStatusBar,
    ILayoutRestorer,
    IDefaultFileBrowser,
    ILabShell,
    ITranslator
  ],
  activate: (
    app: JupyterFrontEnd,
    registry: ISettingRegistry,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    running: IRunningSessionManagers | null,
    statusBar: IStatusBar | null,
    restorer: ILayoutRestorer | null,
    browser: IDefaultFileBrowser | null,
    labShell: ILabShell | null,
    translator: ITranslator | null
  ): ClustersModel => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const api = new Api(app.serviceManager.serverSettings, trans);
    const model = new ClustersModel(api, trans);
    const panel = new StatesPanel(model, app.commands, trans);
    let readOnly = true;

    addCommands({
      app,
      api,
      model,
      trans,
      browser,
      panelId: panel.id,
      readOnly: () => readOnly
    });
    if (labShell) {
      labShell.add(panel, 'left', { rank: 450, type: trans.__('Agent Clusters') });
      restorer?.add(panel, panel.id);
    }
    for (const command of PALETTE) {
      palette?.addItem({ command, category: trans.__('Agents') });
    }
    launcher?.add({
      command: CommandIDs.dashboard,
      args: { isLauncher: true },
      // One of JupyterLab's own headings.
      category: (translator ?? nullTranslator).load('jupyterlab').__('Other'),
      rank: 10
    });
    running?.add(
      new RunningClusters(
        model,
        {
          openCluster: cluster => void app.commands.execute(CommandIDs.openCluster, { cluster }),
          openAgent: (cluster, agent) =>
            void app.commands.execute(CommandIDs.watch, { cluster, agent }),
          // The panel asks before it shuts all down, and shows which one it is otherwise.
          shutdownCluster: cluster =>
            void app.commands.execute(CommandIDs.shutdown, { cluster, confirmed: true }),
          stopAgent: (cluster, agent) =>
            void app.commands.execute(CommandIDs.stopAgent, { cluster, agent })
        },
        trans
      )
    );
    if (statusBar) {
      const item = new StatusItem(
        model,
        () => void app.commands.execute(CommandIDs.showPanel),
        trans
      );
      statusBar.registerStatusItem('orchestrator-lab:status', {
        item,
        align: 'left',
        rank: 5,
        isActive: () => item.isActive,
        activeStateChanged: model.changed as Signal<ClustersModel, void>
      });
    }
    const notifier = new Notifier(
      model,
      api,
      (cluster, agent) => {
        void (agent
          ? app.commands.execute(CommandIDs.watch, { cluster, agent })
          : app.commands.execute(CommandIDs.showPanel));
      },
      trans
    );

    void registry.load(PLUGIN).then(settings => {
      const take = () => {
        readOnly = settings.get('terminalReadOnly').composite !== false;
        notifier.settings = {
          dialogs: settings.get('notifyDialogs').composite !== false,
          alerts: settings.get('notifyAlerts').composite as INotifySettings['alerts']
        };
      };
      settings.changed.connect(take);
      take();
    });
    return model;
  }
};

/** Runs and recordings, which need neither cluster nor kernel. */
const viewers: JupyterFrontEndPlugin<void> = {
  id: 'orchestrator-lab:viewers',
  description: 'Viewers of run folders and of pane recordings.',
  autoStart: true,
  optional: [ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const registry = app.docRegistry;
    registry.addFileType({
      name: 'asciicast',
      displayName: trans.__('Pane recording'),
      extensions: ['.cast'],
      mimeTypes: ['application/x-asciicast'],
      fileFormat: 'text',
      icon: agentsIcon
    });
    registry.addFileType({
      name: 'asciicast-zst',
      displayName: trans.__('Packed pane recording'),
      extensions: ['.cast.zst'],
      mimeTypes: ['application/zstd'],
      fileFormat: 'base64',
      icon: agentsIcon
    });
    const casts = new WidgetTracker<DocumentWidget<CastViewer>>({
      namespace: 'orchestrator-lab-cast'
    });
    for (const packed of [false, true]) {
      const name = packed ? PACKED_CAST_FACTORY : CAST_FACTORY;
      const type = packed ? 'asciicast-zst' : 'asciicast';
      const factory = new CastFactory(
        {
          name,
          label: trans.__('Pane Recording'),
          modelName: packed ? 'base64' : 'text',
          fileTypes: [type],
          defaultFor: [type],
          readOnly: true
        },
        packed,
        trans
      );
      factory.widgetCreated.connect((_, widget) => {
        widget.title.icon = agentsIcon;
        widget.context.pathChanged.connect(() => void casts.save(widget));
        void casts.add(widget);
      });
      registry.addWidgetFactory(factory);
    }
    registry.addFileType({
      name: 'agent-run',
      displayName: trans.__('Agent run'),
      // Its name is all that a file browser knows: the viewer hands on what is another program's.
      pattern: '^manifest\\.json$',
      extensions: [],
      mimeTypes: ['application/json'],
      fileFormat: 'text',
      icon: agentsIcon
    });
    const runs = new WidgetTracker<DocumentWidget<RunViewer>>({
      namespace: 'orchestrator-lab-run'
    });
    const factory = new RunFactory(
      {
        name: RUN_FACTORY,
        label: trans.__('Agent Run'),
        modelName: 'text',
        fileTypes: ['agent-run', 'json'],
        defaultFor: ['agent-run'],
        readOnly: true
      },
      app.serviceManager.contents,
      app.commands,
      trans,
      path => registry.preferredWidgetFactories(path).find(one => one.name !== RUN_FACTORY)?.name
    );
    factory.widgetCreated.connect((_, widget) => {
      // Its label is its file's name: Jupyter would rename the file after another one.
      widget.title.icon = agentsIcon;
      void runs.add(widget);
    });
    registry.addWidgetFactory(factory);
    if (restorer) {
      void restorer.restore(casts, {
        command: 'docmanager:open',
        args: widget => ({
          path: widget.context.path,
          factory: widget.context.path.endsWith('.zst') ? PACKED_CAST_FACTORY : CAST_FACTORY
        }),
        name: widget => widget.context.path
      });
      void restorer.restore(runs, {
        command: 'docmanager:open',
        args: widget => ({ path: widget.context.path, factory: RUN_FACTORY }),
        name: widget => widget.context.path
      });
    }
  }
};

export default [live, viewers, stills];
