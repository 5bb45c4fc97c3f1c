import assert from "node:assert/strict";
import { test } from "node:test";

import { A, B, Session } from "./picker_session.mjs";

const EDIT = ["change", "endEdit", "consume"];

function withPairs(...pairs) {
  const session = new Session();
  session.place(...pairs);
  return session;
}

test("Enter adds a pair in the middle, or finishes the handle", () => {
  const session = new Session();
  assert.deepEqual(session.key("Enter"), EDIT);
  session.click([0.95, 0.2]);
  session.key("Enter");
  assert.deepEqual(session.pairs, [
    [
      [0.5, 0.5],
      [0.6, 0.5],
    ],
    [
      [0.95, 0.2],
      [0.85, 0.2],
    ],
  ]);
  assert.equal(session.state.gesture, null);
});

test("brackets and pages go round all ends", () => {
  const session = withPairs(A, B);
  const chosen = (key) => {
    assert.deepEqual(session.key(key), ["consume"]);
    const { index, end } = session.state.selected;
    return `${index} ${end}`;
  };
  const forward = ["]", "PageDown", "]", "PageDown"].map(chosen);
  assert.deepEqual(forward, ["0 handle", "0 target", "1 handle", "1 target"]);
  assert.deepEqual(["[", "PageUp", "[", "PageUp"].map(chosen), ["1 handle", "0 target", "0 handle", "1 target"]);
  session.key("Escape");
  assert.equal(chosen("["), "1 target", "from nothing, back is the last");
  session.key("Escape");
  assert.equal(chosen("]"), "0 handle", "and on is the first");
  assert.deepEqual(new Session().key("]"), [], "without ends the key is for others");
});

test("an arrow moves the selected end by a pixel, with Shift by ten, and no further than the edge", () => {
  const session = withPairs([
    [0.5, 0.5],
    [1 - 2 / 300, 0.5],
  ]);
  assert.deepEqual(session.key("ArrowUp", true), ["change", "consume"]);
  session.key("ArrowLeft");
  session.key("ArrowDown");
  assert.deepEqual(session.pairs[0][1], [0.99, 0.455]);
  session.key("ArrowRight", true);
  assert.deepEqual(session.pairs[0][1], [1, 0.455]);
});

test("however long an arrow is held, it is one edit", () => {
  const session = withPairs(A);
  for (let held = 0; held < 3; held++) assert.deepEqual(session.key("ArrowLeft"), ["change", "consume"]);
  assert.deepEqual(session.send({ type: "letGo" }), ["endEdit"]);
  assert.deepEqual(session.send({ type: "letGo" }), [], "once");
});

test("Delete removes the selected pair; without one it does nothing, but never leaves the editor", () => {
  for (const key of ["Delete", "Backspace"]) {
    const session = withPairs(A, B);
    assert.deepEqual(session.key(key), EDIT);
    assert.deepEqual(session.pairs, [A]);
    assert.deepEqual(session.key(key), ["consume"]);
    assert.deepEqual(session.pairs, [A]);
    session.send({ type: "lock", reason: "linked" });
    assert.deepEqual(session.key(key), ["consume"]);
  }
});

test("Escape gives up the gesture first, then the selection, then it is for others", () => {
  const session = withPairs(A);
  session.press(A[0]);
  session.move(B[0]);
  assert.deepEqual(session.key("Escape"), ["consume"]);
  assert.equal(session.state.gesture, null);
  assert.deepEqual(session.state.selected, { index: 0, end: "handle" });
  assert.deepEqual(session.key("Escape"), ["consume"]);
  assert.equal(session.state.selected, null);
  assert.deepEqual(session.key("Escape"), []);
  assert.deepEqual(session.pairs, [A]);
});

test("a handle of the text that is given up leaves the text", () => {
  const session = new Session({ text: '[{"x": 60, "y": 60}, {"x": 180, "y": 80}, {"x": 75, "y": 160}]' });
  assert.deepEqual(session.state.gesture.handle, [0.25, 0.8]);
  assert.deepEqual(session.key("Escape"), EDIT);
  assert.deepEqual(session.pairs, [A]);
  assert.equal(JSON.parse(session.state.text).points.length, 1);
});

test("other keys, and all of them where nothing can be edited, are for others", () => {
  const session = withPairs(A);
  for (const key of ["a", " ", "Tab", "Home"]) assert.deepEqual(session.key(key), []);
  session.send({ type: "lock", reason: "linked" });
  for (const key of ["Escape", "Enter", "[", "]", "ArrowLeft"]) assert.deepEqual(session.key(key), []);
});
