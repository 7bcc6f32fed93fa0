import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import { parseCast, resized, unpackCast } from '../../extensions/jupyterlab/src/cast.ts';
import { trans } from './trans.ts';

test('version 3 tells times between events, version 2 since the beginning', () => {
  const body = '[1, "o", "a"]\n\n# a comment\n[2, "r", "90x30"]\n[2.5, "x", "0"]\n[2.5, "m", ""]\n';
  const third = parseCast('{"version": 3, "term": {"cols": 100, "rows": 50}, "timestamp": 1}\n' + body, trans);
  assert.deepEqual([third.cols, third.rows, third.duration, third.startedAt?.getTime()], [100, 50, 8, 1000]);
  assert.deepEqual(
    third.events.map(one => [one.at, one.kind]),
    [
      [1, 'output'],
      [3, 'resize'],
      [8, 'mark']
    ]
  );
  const second = parseCast('{"version": 2, "width": 100, "height": 50}\n' + body, trans);
  assert.deepEqual([second.cols, second.rows, second.duration, second.startedAt], [100, 50, 2.5, null]);
});

test('sizes that nobody could draw are not drawn', () => {
  const cast = parseCast('{"version": 3, "term": {"cols": 1e9, "rows": -2}}', trans);
  assert.deepEqual([cast.cols, cast.rows], [1000, 24]);
  assert.deepEqual(['90x30', '99999x0', '90 x 30', '-1x5'].map(resized), [[90, 30], [1000, 24], null, null]);
});

test('a torn end is left out and told; what is no recording is refused', () => {
  const torn = parseCast('{"version": 3}\n[1, "o", "a"]\n[1, "o', trans);
  assert.deepEqual([torn.events.length, torn.problem], [1, 'line 3 cannot be read; what came before is shown']);
  for (const text of ['', 'null', '{"version": 1}', '[]', '{']) {
    assert.throws(() => parseCast(text, trans), /no recording in asciicast format/);
  }
});

test('frames of a packed recording are read to where they are torn', () => {
  const packed = Buffer.concat(['日本', ' last'].map(text => zstdCompressSync(Buffer.from(text))));
  assert.equal(unpackCast(packed.toString('base64'), trans), '日本 last');
  assert.equal(unpackCast(packed.subarray(0, -3).toString('base64'), trans).slice(0, 2), '日本');
  assert.throws(() => unpackCast(btoa('no such thing'), trans), /cannot be unpacked/);
});

test('a packed recording that never ends is refused', () => {
  const packed = zstdCompressSync(Buffer.alloc(3 * 1024 * 1024)).toString('base64');
  assert.throws(() => unpackCast(packed, trans, 2 * 1024 * 1024), /longer than 2 MB/);
});
