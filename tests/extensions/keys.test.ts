import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Keys } from '../../extensions/dashboard/src/keys.ts';

test('one request at a time, in order, and a long paste alone', async () => {
  const asked: string[] = [];
  const answers: (() => void)[] = [];
  const keys = new Keys(
    (_, data) => new Promise<void>(answer => answers.push(answer) && asked.push(data)),
    () => assert.fail('nothing failed')
  );
  const paste = 'x'.repeat(20000);
  for (const data of ['a', 'b', 'c', paste, 'd']) {
    keys.type('ada', data);
  }
  while (answers.length > 0) {
    answers.shift()!();
    await turn();
  }
  assert.deepEqual(asked, ['a', 'bc', paste, 'd']);
});

test('after one that failed the rest is dropped, of that pane only', async () => {
  const asked: string[] = [];
  const failed: string[] = [];
  const keys = new Keys(
    async (agent, data) => {
      asked.push(`${agent} ${data}`);
      if (data === 'rm') {
        throw new Error('nobody answers');
      }
    },
    (agent, problem) => failed.push(`${agent}: ${problem.message}`)
  );
  for (const [agent, data] of [
    ['ada', 'rm'],
    ['ada', ' -r'],
    ['bob', 'ls']
  ]) {
    keys.type(agent, data);
  }
  await turn();
  keys.type('ada', 'x');
  await turn();
  assert.deepEqual(asked, ['ada rm', 'bob ls', 'ada x']);
  assert.deepEqual(failed, ['ada: nobody answers']);
});
