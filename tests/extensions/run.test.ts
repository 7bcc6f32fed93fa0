import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readManifest, summarise } from '../../extensions/jupyterlab/src/run.ts';
import { trans } from './trans.ts';

function journal(...events: object[]): string {
  return events.map(event => JSON.stringify(event) + '\n').join('');
}

test('a manifest of a run is told from that of another program', () => {
  assert.equal(readManifest('{"run_id": "run_1", "schema_version": 1}').run_id, 'run_1');
  for (const text of ['', 'null', '[]', '{"name": "app", "icons": []}', '{"run_id": 7, "schema_version": 1}', '{']) {
    assert.equal(readManifest(text), null);
  }
});

test('a journal is folded into what a reader asks for', () => {
  const summary = summarise(
    journal(
      { event: 'run.started', monotonic_s: 10 },
      { event: 'agent.added', attributes: { name: 'ada', kind: 'chat' } },
      {
        event: 'message.queued',
        message_id: 'm',
        at: 't',
        attributes: { sender: 'user', recipient: 'ada', content: 'hi' }
      },
      { event: 'message.accepted', message_id: 'm' },
      { event: 'turn.ended', agent: 'ada', turn_id: 'u' },
      { event: 'turn.usage', agent: 'ada', turn_id: 'u', attributes: { input_tokens: 3 } },
      { event: 'turn.usage', agent: 'ada', turn_id: 'u', attributes: { input_tokens: 5, output_tokens: null } },
      { event: 'run.ended', monotonic_s: 12.5, attributes: { status: 'completed' } }
    ),
    trans
  );
  assert.deepEqual(summary.agents, [{ name: 'ada', kind: 'chat', role: '', state: 'unknown', turns: 1, messages: 1 }]);
  assert.deepEqual(summary.messages, [
    { at: 't', sender: 'user', recipient: 'ada', status: 'accepted', content: 'hi' }
  ]);
  assert.deepEqual([summary.status, summary.duration, summary.events], ['completed', 2.5, 8]);
  // Usage that is told again replaces what was told; what nobody told is not 0.
  assert.deepEqual([summary.inputTokens, summary.outputTokens, summary.problem], [5, null, null]);
});

test('a torn end and a damaged line are told, and the rest is read', () => {
  const whole = journal({ event: 'alert.opened' });
  assert.equal(summarise(whole + '{"ev', trans).problem, 'the last line of the journal is torn');
  const damaged = summarise('garbage\n' + whole, trans);
  assert.deepEqual([damaged.problem, damaged.alerts], ['line 1 of the journal cannot be read', 1]);
});
