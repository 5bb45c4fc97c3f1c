import assert from "node:assert/strict";
import { test } from "node:test";

import { EMPTY, isEditable } from "../../js/picker_state.js";
import { update } from "../../js/picker_update.js";
import { hintOf, messageOf } from "../../js/picker_words.js";
import { A, B, Session, SIZE, textOf } from "./picker_session.mjs";

const PIXELS = '[{"x": 60, "y": 60}, {"x": 180, "y": 80}, {"x": 75, "y": 160}]';

test("looking changes nothing, and the same again is the same state", () => {
  const session = new Session({ text: PIXELS });
  assert.deepEqual(session.effects, []);
  assert.equal(session.state.text, PIXELS);
  const before = session.state;
  session.send({ type: "text", text: PIXELS });
  session.send({ type: "lock", reason: null });
  session.send({ type: "cancel" });
  session.send({ type: "letGo" });
  assert.equal(session.state, before);
  assert.deepEqual(EMPTY.pairs, []);
});

test("undo brings another text: the gesture ends, a selection that is gone is dropped", () => {
  const session = new Session();
  session.place(A, B);
  session.press(A[0]);
  session.send({ type: "text", text: textOf(A, B, A) });
  assert.equal(session.state.gesture, null);
  assert.deepEqual(session.state.selected, { index: 0, end: "handle" });
  session.click(B[1]);
  session.send({ type: "text", text: textOf(A) });
  assert.equal(session.state.selected, null);
  assert.deepEqual(session.pairs, [A]);
});

test("every edit but a nudge ends at once", () => {
  const session = new Session({ text: textOf(A) });
  session.click(A[0]);
  assert.deepEqual(session.send({ type: "enter", end: "target", pixels: [150, 100] }), ["change", "endEdit"]);
  assert.deepEqual(session.pairs, [[A[0], [0.5, 0.5]]]);
  session.send({ type: "enter", end: "handle", pixels: [1e9, -5] });
  assert.deepEqual(session.pairs[0][0], [1, 0], "no further than the edge");
  assert.deepEqual(session.send({ type: "swap" }), ["change", "endEdit"]);
  assert.deepEqual(session.send({ type: "clear" }), ["change", "endEdit"]);
  assert.equal(session.state.text, "");
});

test("a number is entered for the selected pair only", () => {
  const session = new Session({ text: textOf(A) });
  assert.deepEqual(session.send({ type: "enter", end: "target", pixels: [1, 1] }), []);
  assert.deepEqual(session.pairs, [A]);
});

test("swap exchanges the selected pair's ends, or all pairs'", () => {
  const session = new Session({ text: textOf(A, B) });
  session.send({ type: "swap" });
  const turned = [A, B].map(([handle, target]) => [target, handle]);
  assert.deepEqual(session.pairs, turned);
  session.key("]");
  session.send({ type: "swap" });
  assert.deepEqual(session.pairs, [A, turned[1]]);
});

test("clear also removes what cannot be read", () => {
  const session = new Session({ text: "broken" });
  assert.match(messageOf(session.state, ""), /cannot be shown: the text is not JSON/);
  session.send({ type: "clear" });
  assert.equal(session.state.text, "");
  assert.ok(isEditable(session.state));
});

test("points in pixels are read again on every image, others stay", () => {
  const session = new Session({ text: PIXELS, size: null });
  assert.equal(session.state.needsImage, true);
  session.send({ type: "image", size: SIZE });
  assert.deepEqual(session.pairs, [A]);
  session.send({ type: "image", size: [600, 400] });
  assert.deepEqual(session.pairs[0][0], [0.1, 0.15]);
  session.send({ type: "image", size: [100, 100] });
  assert.match(session.state.problem, /outside the image/);
  session.send({ type: "image", size: SIZE });
  assert.deepEqual(session.pairs, [A]);
});

test("a gesture goes on over another image; over none a drag ends, a handle waits", () => {
  const session = new Session({ text: textOf(A) });
  session.press(A[1]);
  session.move(B[1]);
  session.send({ type: "image", size: [64, 64] });
  session.release(B[1]);
  assert.deepEqual(session.pairs, [[A[0], B[1]]]);

  session.press(B[1]);
  session.send({ type: "image", size: null });
  assert.equal(session.state.gesture, null);
  session.send({ type: "image", size: SIZE });
  session.click(B[0]);
  session.send({ type: "image", size: null });
  assert.equal(session.state.gesture.kind, "unfinished");
  session.send({ type: "image", size: SIZE });
  session.click([0.3, 0.3]);
  assert.equal(session.pairs.length, 2);
});

test("a lock ends the gesture and says why; without it the points are there again", () => {
  const session = new Session({ text: textOf(A) });
  session.click(B[0]);
  session.send({ type: "lock", reason: "The points come from the link." });
  assert.equal(session.state.gesture, null);
  assert.equal(messageOf(session.state, ""), "The points come from the link.");
  assert.equal(hintOf(session.state, "note"), "");
  session.send({ type: "lock", reason: null });
  assert.deepEqual(session.pairs, [A]);
  assert.equal(messageOf(session.state, ""), "");
});

test("without an image it says that the points are kept", () => {
  const say = (text) => messageOf(new Session({ text, size: null }).state, "Connect.");
  assert.equal(say(""), "Connect. ");
  assert.equal(say(textOf(A)), "Connect. 1 pair of points kept.");
  assert.equal(say(textOf(A, B)), "Connect. 2 pairs of points kept.");
  assert.equal(say(PIXELS), "Connect. The points are kept.");
});

test("the hint says what comes next", () => {
  const session = new Session();
  assert.match(hintOf(session.state, ""), /^Click a handle/);
  assert.equal(hintOf(session.state, "Of the mask."), "Of the mask.");
  session.click(A[0]);
  assert.match(hintOf(session.state, "Of the mask."), /^Now its target/);
  session.click(A[1]);
  assert.match(hintOf(session.state, ""), /^Drag ends/);
});

test("no event changes the state it comes to", () => {
  const session = new Session(); // freezes every state before it sends an event
  session.place(A, B);
  session.drag(A[0], B[0]);
  for (const key of ["]", "ArrowLeft", "Enter", "Delete", "Escape"]) session.key(key);
  for (const type of ["letGo", "swap", "clear", "cancel"]) session.send({ type });
  assert.equal(update(session.state, { type: "cancel" }).state, session.state);
});
