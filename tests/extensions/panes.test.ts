import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAnswer } from '../../extensions/panes/src/quiet.ts';
import { DARK, LIGHT, shadeOf } from '../../extensions/panes/src/theme.ts';
import { Typing } from '../../extensions/panes/src/typing.ts';

/** Brightness of a colour as people see it, 0 to 1 (WCAG). */
function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map(at => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one: string, other: string): number {
  const [dark, bright] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}

test('every colour but the one of the ground can be read on it', () => {
  for (const [theme, ground] of [
    [DARK, 'black'],
    [LIGHT, 'brightWhite']
  ] as const) {
    for (const [name, colour] of Object.entries(theme)) {
      if (!/background|Accent/i.test(name) && name !== ground) {
        assert.ok(contrast(colour as string, theme.background!) >= 4.5, `${name} of ${theme.background}`);
      }
    }
  }
});

/** An element of a page, with what it says of itself and its colour. */
function element(colour: string, parent: unknown = null, light?: string): Element {
  const marked = light === undefined ? null : { dataset: { jpThemeLight: light } };
  return { closest: () => marked, parentElement: parent, colour } as unknown as Element;
}

test('the shade is what JupyterLab says, else that of the first colour around', () => {
  const page = globalThis as any;
  page.getComputedStyle = (one: any) => ({ backgroundColor: one.colour });
  page.matchMedia = () => ({ matches: true });
  const clear = 'rgba(0, 0, 0, 0)';
  assert.equal(shadeOf(element('rgb(0, 0, 0)', null, 'true')), 'light');
  assert.equal(shadeOf(element('rgb(255, 255, 255)', null, 'false')), 'dark');
  assert.equal(shadeOf(element(clear, element('rgb(250, 250, 250)'))), 'light');
  assert.equal(shadeOf(element(clear, element('rgb(20, 23, 28)'))), 'dark');
  assert.equal(shadeOf(element(clear, element(clear))), 'dark');
});

test("a terminal's own answers are told from what a person types", () => {
  for (const answer of ['\x1b[?1;2c', '\x1b[0n', '\x1b[I', '\x1b[<0;1;1M', '\x1b]10;rgb:0/0/0', '\x1bP1$r']) {
    assert.ok(isAnswer(answer), JSON.stringify(answer));
  }
  for (const typed of ['a', '\x1b', '\x1b[A', '\x1b]', '\x1bP', '\x1b[3~', 'ls\r']) {
    assert.ok(!isAnswer(typed), JSON.stringify(typed));
  }
});

test('keys wait for the answer to those before them, in order', () => {
  const sent: string[] = [];
  const typing = new Typing((agent, data) => sent.push(`${agent} ${data}`));
  for (const [agent, data] of [
    ['ada', 'a'],
    ['ada', 'b'],
    ['ada', 'c'],
    ['bob', 'd']
  ]) {
    typing.type(agent, data);
  }
  assert.deepEqual(sent, ['ada a']);
  typing.answered(1);
  assert.deepEqual(sent, ['ada a', 'ada bc']);
  assert.deepEqual(typing.discard(), ['bob']);
  typing.answered(2);
  assert.deepEqual([sent.length, typing.underway], [2, false]);
});
