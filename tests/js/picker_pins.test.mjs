import assert from "node:assert/strict";
import { test } from "node:test";

import { shownPoints } from "../../js/picker_state.js";
import { hintOf, messageOf } from "../../js/picker_words.js";
import { A, B, C, pinnedTextOf, Session, textOf } from "./picker_session.mjs";

const PIN = [0.4, 0.75];
const OTHER = [0.9, 0.2];
const EDIT = ["change", "endEdit"];

test("a click with Shift sets a pin, which is selected; there is no target to place", () => {
  const session = new Session({ text: textOf(A) });
  assert.deepEqual(session.pin(PIN), ["capture", ...EDIT]);
  assert.equal(session.state.gesture, null);
  assert.deepEqual(session.state.selected, { index: 0, end: "pin" });
  session.pin(OTHER);
  assert.deepEqual(session.texts, [pinnedTextOf([A], [PIN]), pinnedTextOf([A], [PIN, OTHER])]);
});

test("with Shift on an end or a pin that is grabbed", () => {
  const session = new Session({ text: pinnedTextOf([A], [PIN]) });
  for (const place of [A[1], PIN]) {
    session.press(place, [0, 0], true);
    assert.equal(session.state.gesture.kind, "move");
    session.release(place);
  }
  assert.deepEqual(session.texts, []);
});

test("after the button the next press sets a pin, wherever, and only that one", () => {
  const session = new Session({ text: textOf(A) });
  assert.deepEqual(session.send({ type: "pin" }), []);
  assert.equal(session.state.isPinning, true);
  session.move(A[0], [0, 0], false);
  assert.equal(session.effects.at(-1).isOnMark, false, "nothing is grabbed");
  session.press([1, 1], [9, 9]);
  assert.equal(session.state.isPinning, true, "beside the image is no press");
  assert.deepEqual(session.click(A[0]), ["capture", ...EDIT]);
  assert.deepEqual(session.pins, [A[0]]);
  assert.equal(session.state.isPinning, false);
  session.click(B[0]);
  assert.equal(session.state.gesture.kind, "unfinished");
});

test("the button a second time, Escape and undo turn it off again", () => {
  const session = new Session({ text: textOf(A) });
  const pin = () => session.send({ type: "pin" });
  const turnOff = [pin, () => session.key("Escape"), () => session.send({ type: "text", text: textOf(B) })];
  for (const off of turnOff) {
    pin();
    assert.equal(session.state.isPinning, true);
    off();
    assert.equal(session.state.isPinning, false);
  }
  session.send({ type: "lock", reason: "linked" });
  pin();
  assert.equal(session.state.isPinning, false);
});

test("a pin follows the pointer until it is let go, and can be given up", () => {
  const session = new Session({ text: pinnedTextOf([A], [OTHER]) });
  session.press(B[0], [0, 0], true);
  session.move(PIN);
  assert.deepEqual(shownPoints(session.state).pins, [OTHER, PIN]);
  assert.deepEqual(session.key("Escape"), ["consume"]);
  assert.deepEqual(session.release(PIN), []);
  session.press(B[0], [0, 0], true);
  session.send({ type: "cancel" });
  assert.equal(session.state.gesture, null);
  assert.deepEqual(session.pins, [OTHER]);
  session.press(B[0], [0, 0], true);
  session.move([7, 7]);
  session.release([7, 7]);
  assert.deepEqual(session.pins, [OTHER, [1, 1]], "beyond the edge is the edge");
});

test("a handle that waits for its target goes on waiting", () => {
  const session = new Session();
  session.click(A[0]);
  session.pin(PIN);
  assert.deepEqual(session.pins, [PIN]);
  assert.equal(session.state.selected, null);
  session.press(OTHER, [0, 0], true);
  session.key("Escape");
  assert.deepEqual(session.state.gesture, { kind: "unfinished", handle: A[0], towards: null });
  session.click(A[1]);
  assert.equal(session.state.text, pinnedTextOf([A], [PIN]));
});

test("a pin is dragged, and drawn where it is", () => {
  const session = new Session({ text: pinnedTextOf([A], [PIN, OTHER]) });
  session.press(PIN);
  session.move(C[0]);
  assert.deepEqual(shownPoints(session.state), { pairs: session.state.pairs, pins: [C[0], OTHER] });
  assert.deepEqual(session.release(C[0]), EDIT);
  assert.equal(session.state.text, pinnedTextOf([A], [C[0], OTHER]));
});

test("a pin is removed as a pair is, and the last one takes the version with it", () => {
  const session = new Session({ text: pinnedTextOf([A], [PIN, OTHER]) });
  assert.deepEqual(session.remove(PIN), ["consume", ...EDIT]);
  assert.deepEqual(session.pins, [OTHER]);
  session.click(OTHER);
  assert.deepEqual(session.key("Backspace"), [...EDIT, "consume"]);
  assert.equal(session.state.text, textOf(A));
  session.pin(PIN);
  session.remove(A[0]);
  assert.equal(session.state.text, pinnedTextOf([], [PIN]), "pins alone are kept");
});

test("keys choose pins after the pairs, move them and add them", () => {
  const session = new Session({ text: pinnedTextOf([A], [PIN]) });
  session.key("[");
  assert.deepEqual(session.state.selected, { index: 0, end: "pin" });
  assert.deepEqual(session.key("ArrowRight", true), ["change", "consume"]);
  session.key("ArrowUp");
  assert.deepEqual(session.send({ type: "letGo" }), ["endEdit"]);
  assert.deepEqual(session.pins, [[0.4333, 0.745]]);
  assert.deepEqual(session.key("Enter", true), [...EDIT, "consume"]);
  assert.deepEqual(session.pins[1], [0.5, 0.5]);
  session.send({ type: "pin" });
  session.key("Enter");
  assert.equal(session.pins.length, 3);
  assert.equal(session.state.isPinning, false);
  session.key("]");
  assert.deepEqual(session.state.selected, { index: 0, end: "handle" }, "after the last comes the first");
});

test("numbers are of the selected pin", () => {
  const session = new Session({ text: pinnedTextOf([A], [PIN, OTHER]) });
  session.click(OTHER);
  assert.deepEqual(session.send({ type: "enter", end: "pin", pixels: [150, 1e9] }), EDIT);
  assert.deepEqual(session.pins, [PIN, [0.5, 1]]);
});

test("swap leaves pins alone, clear does not", () => {
  const session = new Session({ text: pinnedTextOf([A, B], [PIN]) });
  session.click(PIN);
  session.send({ type: "swap" });
  const turned = [A, B].map(([handle, target]) => [target, handle]);
  assert.equal(session.state.text, pinnedTextOf(turned, [PIN]), "a pin selected is no pair selected");
  session.send({ type: "clear" });
  assert.equal(session.state.text, "");
  assert.deepEqual(session.pins, []);
});

test("a selected pin that undo takes away is selected no more", () => {
  const session = new Session({ text: pinnedTextOf([A, B], [PIN]) });
  session.click(PIN);
  session.send({ type: "text", text: pinnedTextOf([A], [OTHER]) });
  assert.deepEqual(session.state.selected, { index: 0, end: "pin" });
  session.send({ type: "text", text: textOf(A, B) });
  assert.equal(session.state.selected, null);
});

test("the words know pins", () => {
  const say = (text) => messageOf(new Session({ text, size: null }).state, "Connect.");
  assert.equal(say(pinnedTextOf([A, B], [PIN])), "Connect. 2 pairs of points and 1 pin kept.");
  assert.equal(say(pinnedTextOf([], [PIN, OTHER])), "Connect. 2 pins kept.");
  const session = new Session();
  assert.match(hintOf(session.state, ""), /Shift\+click to pin/);
  session.send({ type: "pin" });
  assert.match(hintOf(session.state, ""), /^Click what must stay/);
  session.press(PIN);
  assert.match(hintOf(session.state, ""), /^Let go/);
});
