import assert from "node:assert/strict";
import { test } from "node:test";

import { formatPoints, parsePoints } from "../../js/point_value.js";

const SIZE = [300, 200];
const PINS = [
  [0, 0],
  [0.5, 0.987654],
];
const PAIRS = [
  { handle: [0, 1], target: [0.123457, 0.5] },
  { handle: [0.25, 0.75], target: [1, 0] },
];

function ours(points, rest = {}) {
  return JSON.stringify({ v: 1, size: SIZE, points, ...rest });
}

function assertRefused(text, reason) {
  const reading = parsePoints(text, SIZE);
  assert.match(reading.problem ?? "no problem", reason);
  assert.deepEqual(reading.pairs, []);
  assert.equal(reading.unfinished, null);
}

test("what is written is read", () => {
  const text = formatPoints({ pairs: PAIRS, pins: [] }, SIZE);
  assert.deepEqual(parsePoints(text, SIZE), {
    pairs: PAIRS,
    pins: [],
    unfinished: null,
    problem: null,
    needsImage: false,
  });
  assert.deepEqual(parsePoints(text, null).pairs, PAIRS, "no image is needed");
  assert.deepEqual(Object.keys(JSON.parse(text)), ["v", "size", "points"]);
  assert.equal(formatPoints(parsePoints(text, null), SIZE), text);
});

test("with pins it is the second version", () => {
  const text = formatPoints({ pairs: PAIRS, pins: PINS }, SIZE);
  assert.deepEqual(JSON.parse(text), { v: 2, size: SIZE, points: PAIRS, pins: PINS });
  const { pairs, pins } = parsePoints(text, null);
  assert.deepEqual({ pairs, pins }, { pairs: PAIRS, pins: PINS });
  assert.deepEqual(parsePoints(formatPoints({ pairs: [], pins: PINS }, SIZE), null).pins, PINS, "pins alone too");
});

test("the first version knows no pins, whatever they are", () => {
  for (const pins of [PINS, [[2, 0]], "nose"]) {
    for (const v of [1, undefined]) assert.deepEqual(parsePoints(ours(PAIRS, { v, pins }), null).pins, []);
  }
});

test("pins that are none are refused with a reason", () => {
  const withPins = (pins) => ours(PAIRS, { v: 2, pins });
  assert.deepEqual(parsePoints(ours(PAIRS, { v: 2 }), null).pins, []);
  for (const pins of [null, 1, "[]", { length: 1 }]) assertRefused(withPins(pins), /"pins" is not a list/);
  for (const pin of [null, 1, {}, [1], ["0", 0]]) assertRefused(withPins([PINS[0], pin]), /pin 2 is .*, not \[x, y\]/);
  assertRefused(withPins([[0, 1.001]]), /pin 1 lies outside the image/);
  assertRefused(withPins(Array(1001).fill(PINS[0])), /1001 of them/);
});

test("coordinates have six decimals", () => {
  const text = formatPoints(
    { pairs: [{ handle: [1 / 3, 2 / 3], target: [1e-9, 0.1 + 0.2] }], pins: [[2 / 3, 0]] },
    SIZE,
  );
  assert.deepEqual(JSON.parse(text).points, [{ handle: [0.333333, 0.666667], target: [0, 0.3] }]);
  assert.deepEqual(JSON.parse(text).pins, [[0.666667, 0]]);
});

test("no points are the empty text, and blank text is no points", () => {
  assert.equal(formatPoints({ pairs: [], pins: [] }, SIZE), "");
  for (const text of ["", " \n\t"]) assert.equal(parsePoints(text, null).problem, null);
  assert.deepEqual(parsePoints(ours([]), SIZE).pairs, []);
});

test("a size may be missing, unknown keys are no matter", () => {
  const text = JSON.stringify({ v: 1, points: [{ ...PAIRS[0], note: "chin" }], by: "hand" });
  assert.deepEqual(parsePoints(text, null).pairs, [PAIRS[0]]);
});

test("a list of pixels is pairs in turn", () => {
  const text = JSON.stringify([
    { x: 30, y: 20 },
    { x: 300, y: 200 },
    { x: 0, y: 0 },
    { x: 150, y: 50.5 },
  ]);
  assert.deepEqual(parsePoints(text, SIZE).pairs, [
    { handle: [0.1, 0.1], target: [1, 1] },
    { handle: [0, 0], target: [0.5, 0.2525] },
  ]);
});

test("a list of pixels waits for an image", () => {
  const reading = parsePoints('[{"x": 1, "y": 2}, {"x": 3, "y": 4}]', null);
  assert.deepEqual(reading, { pairs: [], pins: [], unfinished: null, problem: null, needsImage: true });
  assert.equal(parsePoints("[]", null).needsImage, false);
});

test("the last of an odd number of pixels is a handle without a target", () => {
  const reading = parsePoints('[{"x": 3, "y": 2}, {"x": 6, "y": 4}, {"x": 30, "y": 20}]', SIZE);
  assert.equal(reading.pairs.length, 1);
  assert.deepEqual(reading.unfinished, [0.1, 0.1]);
});

test("a list of pixels that is not on the image is refused", () => {
  assertRefused('[{"x": 301, "y": 2}, {"x": 6, "y": 4}]', /point 1 lies outside the image, which has 300 × 200/);
  assertRefused('[{"x": 1, "y": -1}, {"x": 6, "y": 4}]', /point 1 lies outside/);
});

test("what is no points is refused with a reason", () => {
  assertRefused("(10, 20) to (30, 40)", /not JSON/);
  assertRefused('{"v": 1, "points": [', /not JSON/);
  assertRefused("NaN", /not JSON/);
  for (const text of ["null", "true", "12", '"1,2"']) assertRefused(text, /holds no points/);
  assertRefused("{}", /"points" is not a list/);
  for (const notText of [undefined, null, 5, {}, []]) assertRefused(notText, /not text/);
});

test("without a version it is the first, as for the node", () => {
  assert.deepEqual(parsePoints(JSON.stringify({ points: PAIRS }), null).pairs, PAIRS);
});

test("another version is refused", () => {
  for (const v of [3, 0, "1", null, true, [1], { v: 1 }]) {
    assertRefused(JSON.stringify({ v, points: PAIRS }), /version \(v\) is .*, not 1 or 2/);
  }
});

test("anything but two numbers is refused as a point", () => {
  const notLists = [null, "0.5,0.5", 0.5, {}, { x: 0, y: 0 }];
  const hostile = [...notLists, [], [0.5], [0.5, 0.5, 0.5], ["0.5", "0.5"], [null, 0], [[0.5], 0.5]];
  for (const point of hostile) {
    assertRefused(ours([{ handle: point, target: [0, 0] }]), /handle of pair 1 is/);
    assertRefused(ours([PAIRS[0], { handle: [0, 0], target: point }]), /target of pair 2 is/);
  }
  for (const pair of [null, 1, "x", [], {}]) assertRefused(ours([pair]), /handle of pair 1 is missing/);
  for (const point of [null, 1, "x", [1, 2], {}, { x: 1 }, { x: "1", y: 2 }, { x: null, y: 2 }]) {
    assertRefused(JSON.stringify([point]), /point 1 is/);
  }
});

test("what is not finite or not on the image is refused", () => {
  for (const number of ["1e999", "-1e999"]) {
    assertRefused(`{"v": 1, "points": [{"handle": [${number}, 0], "target": [0, 0]}]}`, /handle of pair 1/);
    assertRefused(`[{"x": ${number}, "y": 0}]`, /point 1/);
  }
  for (const coordinate of [-0.001, 1.001, 1e300]) {
    assertRefused(ours([{ handle: [0, 0], target: [0, coordinate] }]), /target of pair 1 lies outside/);
  }
});

test("points and size of another shape are refused", () => {
  for (const points of [undefined, null, {}, "[]", 3]) {
    assertRefused(JSON.stringify({ v: 1, points }), /"points" is not a list/);
  }
  for (const size of [null, 300, "300x200", [300], [300, 0], [300, "200"], [1, 2, 3]]) {
    assertRefused(ours(PAIRS, { size }), /size is not \[width, height\]/);
  }
});

test("what is huge is refused, quickly", () => {
  const depth = 100_000;
  const nested = "[".repeat(depth) + "]".repeat(depth);
  const started = performance.now();
  assertRefused(nested, /./);
  assertRefused(`{"v": ${nested}, "points": []}`, /./);
  assertRefused(ours([]).replace("[]", nested), /./);
  assertRefused(" ".repeat(999) + "x".repeat(2_000_000), /2000999 characters/);
  assertRefused(ours(Array(1001).fill(PAIRS[0])), /1001 of them/);
  assertRefused(JSON.stringify(Array(2001).fill({ x: 1, y: 1 })), /2001 of them/);
  assertRefused(JSON.stringify({ v: 1, points: [{ handle: "x".repeat(10_000) }] }), /^.{0,90}$/);
  assert.ok(performance.now() - started < 2000);
});

test("a prototype cannot be smuggled in", () => {
  const text = '{"__proto__": {"v": 1, "points": []}, "constructor": 1}';
  assertRefused(text, /"points" is not a list/);
  assert.equal({}.v, undefined);
});
