import assert from "node:assert/strict";
import { test } from "node:test";

import {
  boxToNormalised,
  clampToImage,
  clientToBox,
  isOnImage,
  letterbox,
  markAt,
  normalisedToBox,
  normalisedToPixels,
  pixelsToNormalised,
} from "../../js/point_geometry.js";

const SIZES = [
  [300, 200],
  [100, 4000],
  [1, 1],
  [8192, 8],
];
const POINTS = [
  [0, 0],
  [1, 1],
  [0.25, 0.8],
  [-0.5, 1.5],
];

function assertClose(actual, expected) {
  for (const [index, value] of actual.entries()) {
    assert.ok(Math.abs(value - expected[index]) < 1e-9, `${actual} is not ${expected}`);
  }
}

test("a wide image touches left and right, a tall one top and bottom, both centred", () => {
  assert.deepEqual(letterbox([400, 400], [300, 150]), { x: 0, y: 100, width: 400, height: 200 });
  assert.deepEqual(letterbox([400, 400], [100, 200]), { x: 100, y: 0, width: 200, height: 400 });
  assert.deepEqual(letterbox([400, 200], [20, 10]), { x: 0, y: 0, width: 400, height: 200 });
});

test("the box and the normalised space are each other's inverse, corners go to corners", () => {
  for (const size of SIZES) {
    const frame = letterbox([417, 233], size);
    assertClose(boxToNormalised([frame.x, frame.y], frame), [0, 0]);
    assertClose(boxToNormalised([frame.x + frame.width, frame.y + frame.height], frame), [1, 1]);
    for (const point of POINTS) {
      assertClose(boxToNormalised(normalisedToBox(point, frame), frame), point);
    }
  }
});

test("pixels and the normalised space are each other's inverse; the right edge is pixel coordinate W", () => {
  assert.deepEqual(normalisedToPixels([1, 1], [300, 200]), [300, 200]);
  for (const size of SIZES) assertClose(pixelsToNormalised(normalisedToPixels([0.3, 0.7], size), size), [0.3, 0.7]);
});

test("a click means the same point of the image at every zoom and scroll", () => {
  const size = [400, 300];
  const frame = letterbox(size, [300, 200]);
  for (const zoom of [0.1, 0.5, 1, 2, 3.7]) {
    const rect = { left: 13.5, top: -70, width: size[0] * zoom, height: size[1] * zoom };
    const [x, y] = normalisedToBox([0.2, 0.9], frame);
    const client = [rect.left + x * zoom, rect.top + y * zoom];
    assertClose(boxToNormalised(clientToBox(client, rect, size), frame), [0.2, 0.9]);
  }
});

test("clamping moves only what is outside", () => {
  assert.deepEqual(clampToImage([0.5, 1]), [0.5, 1]);
  assert.deepEqual(clampToImage([-3, 1.0001]), [0, 1]);
});

test("beside the image counts as on it up to the margin", () => {
  const frame = { x: 50, y: 0, width: 100, height: 200 };
  assert.ok(isOnImage([50, 200], frame, 0));
  assert.ok(isOnImage([45, 100], frame, 6));
  assert.ok(!isOnImage([43, 100], frame, 6));
  assert.ok(!isOnImage([100, 207], frame, 6));
});

test("the nearest mark within reach is hit", () => {
  const frame = { x: 0, y: 0, width: 100, height: 100 };
  const pairs = [
    { handle: [0.1, 0.1], target: [0.5, 0.5] },
    { handle: [0.55, 0.5], target: [0.9, 0.9] },
  ];
  const points = { pairs, pins: [[0.7, 0.2]] };
  assert.deepEqual(markAt([68, 21], points, frame, 5), { index: 0, end: "pin" });
  assert.deepEqual(markAt([12, 9], points, frame, 5), { index: 0, end: "handle" });
  assert.deepEqual(markAt([51, 50], points, frame, 8), { index: 0, end: "target" });
  assert.deepEqual(markAt([54, 50], points, frame, 8), { index: 1, end: "handle" });
  assert.equal(markAt([30, 30], points, frame, 8), null);
  assert.equal(markAt([30, 30], { pairs: [], pins: [] }, frame, 8), null);
});

test("of marks at one place the one drawn on top is hit", () => {
  const frame = { x: 0, y: 0, width: 100, height: 100 };
  const pair = { handle: [0.5, 0.5], target: [0.5, 0.5] };
  const pairs = [pair, pair];
  assert.deepEqual(markAt([50, 50], { pairs, pins: [] }, frame, 5), { index: 1, end: "target" });
  assert.deepEqual(markAt([50, 50], { pairs, pins: [pair.handle] }, frame, 5), { index: 0, end: "pin" });
});
