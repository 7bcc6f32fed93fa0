import { h } from './dom';

/** Ask before something is done that cannot be taken back; the browser's own dialog holds the focus. */
export function confirmed(title: string, text: string, act: string): Promise<boolean> {
  const dialog = h(
    'dialog',
    { 'aria-labelledby': 'confirm-title' },
    h(
      'form',
      { method: 'dialog' },
      h('h2', { id: 'confirm-title' }, title),
      h('p', {}, text),
      h(
        'div',
        { class: 'bar end' },
        h('button', { value: 'no', autofocus: true }, 'Cancel'),
        h('button', { value: 'yes', class: 'danger' }, act)
      )
    )
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise(done =>
    dialog.addEventListener('close', () => {
      done(dialog.returnValue === 'yes');
      dialog.remove();
    })
  );
}
