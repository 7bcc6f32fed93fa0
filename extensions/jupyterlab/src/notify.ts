import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { type Alert, type Dialog, LEVELS } from '../../shared/src/api';
import { short } from '../../shared/src/words';
import { Api } from './api';
import { ClustersModel, Told } from './model';

/** Which notifications a user wants. */
export interface INotifySettings {
  dialogs: boolean;
  alerts: 'info' | 'warning' | 'error' | 'critical' | 'never';
}

/** Letters of a question that a notification shows. */
const SUBJECT = 220;

/** Tells when an agent waits for a person, with the question's own options, and when an alert opens. */
export class Notifier {
  constructor(
    model: ClustersModel,
    private _api: Api,
    private _open: (cluster: string, agent: string | null) => void,
    private _trans: TranslationBundle
  ) {
    model.told.connect((_, told) => this._hear(told));
  }

  settings: INotifySettings = { dialogs: true, alerts: 'warning' };

  private _hear(told: Told): void {
    switch (told.kind) {
      case 'dialog':
        this._dialog(told.cluster, told.agent, told.dialog);
        break;
      case 'alert':
        this._alert(told.cluster, told.alert);
        break;
      case 'dialog-over':
        this._over(`dialog ${told.dialogId}`);
        break;
      case 'alert-over':
        this._over(`alert ${told.alertId}`);
    }
  }

  private _dialog(cluster: string, agent: string, dialog: Dialog): void {
    if (!this.settings.dialogs) {
      return;
    }
    const actions: Notification.IAction[] = dialog.options.map((option, place) => ({
      label: short(option, 40),
      caption: option,
      displayType: place === 0 ? 'accent' : 'default',
      callback: () => void this._answer(cluster, agent, dialog, place + 1)
    }));
    actions.push({
      label: this._trans.__('Open'),
      caption: this._trans.__('Open a terminal that shows %1', agent),
      displayType: 'link',
      callback: event => {
        event.preventDefault(); // the question stays open
        this._open(cluster, agent);
      }
    });
    const said = this._trans.__(
      '%1 (%2) asks, %3: %4',
      agent,
      cluster,
      dialog.kind,
      short(dialog.subject, SUBJECT)
    );
    this._show(`dialog ${dialog.dialog_id}`, said, 'warning', actions);
  }

  private _alert(cluster: string, alert: Alert): void {
    // That an agent waits is told with its question.
    const asked = this.settings.dialogs && alert.rule === 'waiting';
    const wanted = LEVELS.indexOf(alert.level) >= LEVELS.indexOf(this.settings.alerts);
    if (this.settings.alerts === 'never' || !wanted || asked || alert.acknowledged_by) {
      return;
    }
    const type = { info: 'info', warning: 'warning' }[alert.level] ?? 'error';
    this._show(
      `alert ${alert.alert_id}`,
      `${cluster}: ${short(alert.message, SUBJECT)}`,
      type as 'info',
      [
        { label: this._trans.__('Show'), callback: () => this._open(cluster, null) },
        {
          label: this._trans.__('Acknowledge'),
          callback: () =>
            void this._api
              .post(['clusters', cluster, 'alerts', alert.alert_id, 'acknowledge'])
              .catch(problem => Notification.error(problem.message))
        }
      ]
    );
  }

  private async _answer(
    cluster: string,
    agent: string,
    dialog: Dialog,
    option: number
  ): Promise<void> {
    try {
      await this._api.answer(cluster, agent, dialog.dialog_id, option);
    } catch (problem) {
      Notification.error(
        this._trans.__('%1 was not answered: %2', agent, (problem as Error).message),
        {
          autoClose: 10000
        }
      );
    }
  }

  private _show(
    key: string,
    message: string,
    type: 'info' | 'warning' | 'error',
    actions: Notification.IAction[]
  ): void {
    const known = this._shown.get(key);
    if (known && Notification.manager.has(known)) {
      Notification.update({ id: known, message, type, actions, autoClose: false });
      return;
    }
    this._shown.set(key, Notification.emit(message, type, { actions, autoClose: false }));
  }

  private _over(key: string): void {
    const id = this._shown.get(key);
    if (id) {
      this._shown.delete(key);
      Notification.dismiss(id);
    }
  }

  private _shown = new Map<string, string>();
}
