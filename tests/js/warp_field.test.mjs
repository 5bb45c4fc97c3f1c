import assert from "node:assert/strict";
import { test } from "node:test";

import { distance } from "../../js/point_geometry.js";
import { fadingField, movingLeastSquares, steadyField } from "../../js/warp_field.js";

const SIZE = [320, 160];
const RADIUS = 1 / 8; // within 20 pixels of a pull all goes along
const CONTROLS = [
  [40, 30],
  [250, 80],
  [120, 140],
];
const IMAGES = [
  [70, 35],
  [240, 120],
  [90, 110],
];
const PLACES = [
  [0, 0],
  [100.5, 60.25],
  [319, 159],
  [40, 140],
];

function assertClose(actual, expected, margin = 1e-6) {
  assert.ok(distance(actual, expected) < margin, `${actual} is not ${expected}`);
}

function turned([x, y], angle, [shiftX, shiftY]) {
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
  return [cosine * x - sine * y + shiftX, sine * x + cosine * y + shiftY];
}

test("one control shifts everything", () => {
  for (const place of PLACES) {
    assertClose(movingLeastSquares(place, [CONTROLS[0]], [IMAGES[0]]), [place[0] + 30, place[1] + 5]);
  }
});

test("controls that all turn and shift alike turn and shift everything", () => {
  for (const count of [2, 3]) {
    const controls = CONTROLS.slice(0, count);
    const images = controls.map((control) => turned(control, 2.1, [12, -7]));
    for (const place of PLACES) assertClose(movingLeastSquares(place, controls, images), turned(place, 2.1, [12, -7]));
  }
});

test("at a control is its image, and that of a pin is itself", () => {
  CONTROLS.forEach((control, index) => {
    assertClose(movingLeastSquares(control, CONTROLS, IMAGES), IMAGES[index]);
    const field = steadyField({ pairs: [{ handle: IMAGES[0], target: CONTROLS[0] }], pins: [IMAGES[1]] });
    assertClose(field(CONTROLS[0]), IMAGES[0]);
    assertClose(field(IMAGES[1]), IMAGES[1]);
  });
});

test("no other turn and shift brings the controls nearer to their images", () => {
  const place = [100, 60];
  const weights = CONTROLS.map((control) => 1 / distance(place, control) ** 2);
  const misses = (map) =>
    CONTROLS.reduce((sum, control, k) => sum + weights[k] * distance(map(control), IMAGES[k]) ** 2, 0);
  const image = movingLeastSquares(place, CONTROLS, IMAGES);
  let [best, found] = [Infinity, null];
  for (let angle = -0.6; angle < 0.6; angle += 0.002) {
    const centre = (points, axis) =>
      points.reduce((sum, point, k) => sum + weights[k] * point[axis], 0) /
      weights.reduce((sum, weight) => sum + weight);
    const [x, y] = turned([centre(CONTROLS, 0), centre(CONTROLS, 1)], angle, [0, 0]);
    const shift = [centre(IMAGES, 0) - x, centre(IMAGES, 1) - y];
    const missed = misses((control) => turned(control, angle, shift));
    if (missed < best) [best, found] = [missed, turned(place, angle, shift)];
  }
  assertClose(image, found, 0.2);
});

test("controls at one place, and places at a control, have finite images", () => {
  const twice = [CONTROLS[0], CONTROLS[0]];
  for (const place of [...PLACES, CONTROLS[0]]) {
    assert.ok(movingLeastSquares(place, twice, twice).every(Number.isFinite));
    assert.ok(movingLeastSquares(place, twice, IMAGES.slice(0, 2)).every(Number.isFinite));
  }
});

test("without a mask a pull fades out: whole near its way, none beyond it", () => {
  const field = fadingField({ pairs: [{ handle: [100, 80], target: [130, 80] }], pins: [] }, SIZE, RADIUS);
  for (const place of [
    [130, 80],
    [100, 80],
    [115, 99.9],
    [149.9, 80],
    [80.1, 80],
  ]) {
    assertClose(field(place), [place[0] - 30, place[1]]);
  }
  const middle = 20 + 30; // halfway between 20 and 20 + 2 · 30
  assertClose(field([130 + middle, 80]), [130 + middle - 15, 80]);
  assertClose(field([115, 80 + middle]), [100, 80 + middle]);
  for (const place of [
    [130 + 80, 80],
    [115, 160],
    [0, 0],
    [20, 80],
  ]) {
    const same = field(place);
    assert.deepEqual(same, place, "exactly");
  }
});

test("several pulls fade by the nearest way and reach as far as the longest allows", () => {
  const pairs = [
    { handle: [40, 80], target: [44, 80] },
    { handle: [260, 80], target: [260, 110] },
  ];
  const field = fadingField({ pairs, pins: [[160, 20]] }, SIZE, RADIUS);
  assertClose(field([44, 80]), [40, 80]);
  assertClose(field([260, 110]), [260, 80]);
  assert.notDeepEqual(field([44, 159]), [44, 159]);
  assert.deepEqual(field([152, 80]), [152, 80]);
  assertClose(field([160, 20]), [160, 20]);
});

test("what pulls nothing leaves everything", () => {
  const still = { handle: [100, 80], target: [100, 80] };
  for (const points of [
    { pairs: [still], pins: [] },
    { pairs: [], pins: [[3, 4]] },
    { pairs: [], pins: [] },
  ]) {
    for (const place of PLACES) assert.deepEqual(fadingField(points, SIZE)(place), place);
  }
});
