import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ago, bytes, clock, count, many, marked, offset, short } from '../../extensions/shared/src/words.ts';

test('a state has a mark of its own, one that is not known a question', () => {
  assert.equal(marked('waiting'), '◆ waiting');
  assert.equal(marked('dreaming'), '? dreaming');
});

test('a time that has passed is told in its two largest units', () => {
  const told = [-1, 0, 59.9, 60, 3599, 3600, 7260, 86400, 200000].map(ago);
  assert.deepEqual(told, ['0 s', '0 s', '59 s', '1 min', '59 min', '1 h 0 min', '2 h 1 min', '1 d', '2 d']);
  assert.deepEqual([null, NaN, Infinity].map(ago), ['', '', '']);
});

test('what is not known is not told as none', () => {
  assert.deepEqual([null, undefined, 0, 1.25, 9999].map(count), ['unknown', 'unknown', '0', '1.3', '9999']);
});

test('long numbers never say a thousand thousands', () => {
  assert.deepEqual([10000, 999499, 999500, 1e6].map(count), ['10 k', '999 k', '1.0 M', '1.0 M']);
  assert.deepEqual([999499, 999500, 2.4e9].map(bytes), ['999 kB', '1 MB', '2400 MB']);
  assert.deepEqual([many(1, 'turn'), many(0, 'turn')], ['1 turn', '0 turns']);
});

test('an offset never says sixty seconds', () => {
  assert.deepEqual([-1, 0.04, 59.94, 59.96, 61.2, 3599.99, 3661].map(offset), [
    '0:00.0',
    '0:00.0',
    '0:59.9',
    '1:00.0',
    '1:01.2',
    '1:00:00.0',
    '1:01:01.0'
  ]);
});

test('a time of day of what is no instant is nothing', () => {
  assert.deepEqual([null, undefined, '', 'soon'].map(clock), ['', '', '', '']);
  assert.match(clock('2026-01-02T03:04:05Z'), /^\d\d:\d\d:05$/);
});

test('a text is cut between letters, never within one', () => {
  assert.equal(short('  two\n words ', 20), 'two words');
  assert.equal(short('🙂🙂🙂🙂', 3), '🙂🙂…');
});
