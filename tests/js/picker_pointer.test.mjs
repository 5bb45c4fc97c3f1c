import assert from "node:assert/strict";
import { test } from "node:test";

import { shownPoints } from "../../js/picker_state.js";
import { A, B, C, Session, textOf } from "./picker_session.mjs";

test("two clicks make a pair, and so does a drag; its target is selected", () => {
  const session = new Session();
  assert.deepEqual(session.click(A[0]), ["capture"], "a handle alone is no pair");
  assert.equal(session.state.text, "");
  assert.deepEqual(session.click(A[1]), ["capture", "change", "endEdit"]);
  assert.deepEqual(session.drag(...B), ["capture", "change", "endEdit"]);
  assert.deepEqual(session.pairs, [A, B]);
  assert.deepEqual(session.state.selected, { index: 1, end: "target" });
  assert.deepEqual(session.texts, [textOf(A), textOf(A, B)]);
});

test("an unfinished handle points to where the pointer is", () => {
  const session = new Session();
  session.click(A[0]);
  assert.deepEqual(session.move(B[0], [0, 0], false), []);
  assert.deepEqual(session.state.gesture, { kind: "unfinished", handle: A[0], towards: B[0] });
});

test("an end is dragged, and both places are told once", () => {
  const session = new Session({ text: textOf(A, B) });
  session.press(B[0], [5, 5]);
  assert.deepEqual(session.state.selected, { index: 1, end: "handle" });
  session.move(C[0]);
  assert.deepEqual(shownPoints(session.state).pairs[1].handle, C[0], "it is drawn there");
  assert.deepEqual(session.texts, [], "but the text waits for the release");
  assert.deepEqual(session.release(C[1]), ["change", "endEdit"], "where it was last seen");
  assert.deepEqual(session.pairs, [A, [C[0], B[1]]]);
});

test("less than four screen pixels are a click, at any zoom", () => {
  for (const zoom of [0.25, 1, 3]) {
    const session = new Session({ text: textOf(A), zoom });
    session.press(A[0]);
    session.move(A[0], [3.9, 0]);
    assert.deepEqual(session.release(A[0], [3.9, 0]), []);
    session.press(A[0]);
    session.move(A[0], [4.1, 0]);
    assert.deepEqual(session.release(A[0], [4.1, 0]), ["change", "endEdit"]);
    session.press(B[0]);
    session.move(B[0], [4.1, 0]);
    assert.deepEqual(session.release(B[0]), ["change", "endEdit"]);
    assert.equal(session.pairs.length, 2);
  }
});

test("a double click is no pair", () => {
  const session = new Session();
  session.click(B[0]);
  assert.deepEqual(session.click(B[0]), ["capture"]);
  session.press(B[0], [2, 2]);
  assert.deepEqual(session.release(B[0], [2, 2]), []);
  assert.deepEqual(session.state.gesture, { kind: "unfinished", handle: B[0], towards: null });
  session.press(B[0]);
  session.move(B[0], [3, 0]);
  assert.deepEqual(session.release(B[0]), [], "nor is one that trembles");
});

test("beyond the edge is the edge", () => {
  const session = new Session({ text: textOf(A) });
  session.drag(A[1], [40, 40]);
  assert.deepEqual(session.pairs, [[A[0], [1, 1]]]);
});

test("a press beside the image means its edge up to six screen pixels, then nothing", () => {
  const session = new Session();
  session.press([1, 0.5], [7, 0]);
  assert.equal(session.state.gesture, null);
  session.click([1, 0.5]);
  assert.deepEqual(session.state.gesture.handle, [1, 0.5]);
  assert.deepEqual(session.press([0, 0.5], [-7, 0]), [], "nor is a target there");
  session.press([0, 0.5], [-5, 0]);
  session.release([0, 0.5], [-5, 0]);
  assert.deepEqual(session.pairs, [
    [
      [1, 0.5],
      [0, 0.5],
    ],
  ]);
});

test("a press beside everything selects nothing", () => {
  const session = new Session({ text: textOf(A) });
  session.click(A[0]);
  assert.notEqual(session.state.selected, null);
  session.press([1, 1], [9, 9]);
  assert.equal(session.state.selected, null);
});

test("ends are grabbed within 13 screen pixels", () => {
  for (const zoom of [0.5, 2]) {
    const session = new Session({ text: textOf(A), zoom });
    assert.deepEqual(session.move(A[0], [12.9, 0], false), ["hover"]);
    assert.equal(session.effects.at(-1).isOnMark, true);
    session.move(A[0], [13.1, 0], false);
    assert.equal(session.effects.at(-1).isOnMark, false);
  }
});

test("a drag that is given up changes nothing, and a handle from before it stays", () => {
  const session = new Session({ text: textOf(A) });
  session.press(A[0]);
  session.move(B[0]);
  session.send({ type: "cancel" });
  assert.equal(session.state.gesture, null);
  assert.deepEqual(session.release(B[0]), []);

  session.press(B[0]);
  session.send({ type: "cancel" });
  assert.equal(session.state.gesture, null, "the handle was the drag's own");

  session.click(B[0]);
  session.press(C[0]);
  session.move(C[1]);
  session.send({ type: "cancel" });
  assert.deepEqual(session.state.gesture, { kind: "unfinished", handle: B[0], towards: null });
  assert.deepEqual(session.pairs, [A]);
});

test("a drag whose release was not seen ends with the next move", () => {
  const session = new Session({ text: textOf(A) });
  session.press(A[0]);
  session.move(B[0]);
  assert.deepEqual(session.move(C[0], [0, 0], false), ["hover"]);
  assert.equal(session.state.gesture, null);
  assert.deepEqual(session.pairs, [A]);
});

test("a right click on an end removes its pair, elsewhere it is for others", () => {
  const session = new Session({ text: textOf(A, B) });
  assert.deepEqual(session.remove(C[0]), []);
  assert.deepEqual(session.remove(A[1]), ["consume", "change", "endEdit"]);
  assert.deepEqual(session.pairs, [B]);
  assert.equal(session.state.selected, null);
  session.remove(B[0]);
  assert.equal(session.state.text, "");
});

test("nothing is edited where points are locked, unreadable or without an image", () => {
  const locked = new Session({ text: textOf(A) });
  locked.send({ type: "lock", reason: "linked" });
  const pixels = new Session({ text: '[{"x": 1, "y": 2}, {"x": 30, "y": 4}]', size: null });
  for (const session of [locked, pixels, new Session({ text: "broken" }), new Session({ size: null })]) {
    const before = session.state;
    for (const act of ["press", "move", "release", "remove"]) assert.deepEqual(session[act](A[0]), []);
    assert.equal(session.state, before);
  }
});
