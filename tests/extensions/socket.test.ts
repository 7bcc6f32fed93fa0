import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { Socket } from '../../extensions/shared/src/socket.ts';

/** A websocket in the hands of a test. */
class Wire {
  readyState = 0;
  said: string[] = [];
  onopen = (): void => undefined;
  onclose = (): void => undefined;
  onmessage = (_: { data: string }): void => undefined;

  opens(): void {
    this.readyState = 1;
    this.onopen();
  }

  breaks(): void {
    this.readyState = 3;
    this.onclose();
  }

  send(text: string): void {
    this.said.push(text);
  }

  close(): void {
    this.breaks();
  }
}

function rig(): { wires: Wire[]; socket: Socket; last(): Wire } {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout'] });
  const wires: Wire[] = [];
  const socket = new Socket(() => {
    wires.push(new Wire());
    return wires[wires.length - 1] as unknown as WebSocket;
  });
  return { wires, socket, last: () => wires[wires.length - 1] };
}

test('one that cannot be opened is tried again, ever more slowly, and at once after it was open', () => {
  const { wires, socket, last } = rig();
  const broken: boolean[] = [];
  socket.onBroken = was => broken.push(was);
  socket.connect();
  for (const pause of [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]) {
    const tried = wires.length;
    last().breaks();
    mock.timers.tick(pause - 1);
    assert.equal(wires.length, tried);
    mock.timers.tick(1);
    assert.equal(wires.length, tried + 1);
  }
  last().opens();
  last().breaks();
  mock.timers.tick(500);
  assert.equal(wires.length, 10);
  assert.deepEqual(broken, [...Array(8).fill(false), true]);
});

test('what is said reaches an open socket only', () => {
  const { socket, last } = rig();
  socket.say({ op: 'ping' });
  socket.connect();
  socket.say({ op: 'ping' });
  assert.deepEqual(last().said, []);
  last().opens();
  socket.say({ op: 'ping' });
  assert.deepEqual(last().said, ['{"op":"ping"}']);
});

test('connect does not wait for the next try, and leaves an open socket alone', () => {
  const { wires, socket, last } = rig();
  socket.connect();
  last().breaks();
  socket.connect();
  assert.equal(wires.length, 2);
  last().opens();
  socket.connect();
  mock.timers.tick(60000);
  assert.equal(wires.length, 2);
});

test('one that is closed stays so, also when its owner closes it because it broke', () => {
  const { wires, socket, last } = rig();
  const heard: unknown[] = [];
  socket.onFrame = frame => heard.push(frame);
  socket.onBroken = () => socket.close();
  socket.connect();
  last().breaks();
  mock.timers.tick(60000);
  assert.equal(wires.length, 1);
  socket.connect();
  last().opens();
  last().onmessage({ data: '{"event":"pong"}' });
  socket.close();
  last().onmessage({ data: '{"event":"late"}' });
  mock.timers.tick(60000);
  assert.equal(wires.length, 2);
  assert.deepEqual(heard, [{ event: 'pong' }]);
});
