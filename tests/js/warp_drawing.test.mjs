import assert from "node:assert/strict";
import { test } from "node:test";

import { pullsOf, regionsOf } from "../../js/mask_regions.js";
import { drawMoved, drawWarped } from "../../js/warp_drawing.js";
import { fadingField } from "../../js/warp_field.js";

const [WIDTH, HEIGHT] = [61, 43]; // no whole number of cells

/** A picture whose red and green say where a pixel is. */
function picture() {
  const data = new Uint8ClampedArray(4 * WIDTH * HEIGHT);
  for (let at = 0; at < WIDTH * HEIGHT; at++) {
    data.set([2 * (at % WIDTH), 3 * Math.floor(at / WIDTH), 77, 255], 4 * at);
  }
  return { data, width: WIDTH, height: HEIGHT };
}

const blank = () => ({ data: new Uint8ClampedArray(4 * WIDTH * HEIGHT), width: WIDTH, height: HEIGHT });

/** Where what is drawn at a pixel was in the picture. */
function origin({ data }, [x, y]) {
  const at = 4 * (y * WIDTH + x);
  return [data[at] / 2, data[at + 1] / 3];
}

function regionsOfBoxes(...boxes) {
  const masked = new Uint8Array(WIDTH * HEIGHT);
  for (const [left, top, right, bottom] of boxes) {
    for (let y = top; y < bottom; y++) masked.fill(1, WIDTH * y + left, WIDTH * y + right);
  }
  return regionsOf(masked, WIDTH, HEIGHT);
}

test("a field that moves nothing draws the picture", () => {
  const drawn = blank();
  drawWarped(drawn, picture(), (place) => place);
  assert.deepEqual(drawn.data, picture().data);
});

test("a shift is drawn to the pixel, and beyond the edge is the edge", () => {
  const drawn = blank();
  drawWarped(drawn, picture(), ([x, y]) => [x - 3, y + 1]);
  assert.deepEqual(origin(drawn, [10, 10]), [7, 11]);
  assert.deepEqual(origin(drawn, [WIDTH - 1, HEIGHT - 1]), [WIDTH - 4, HEIGHT - 1]);
  assert.deepEqual(origin(drawn, [0, 0]), [0, 1]);
  drawWarped(drawn, picture(), ([x, y]) => [x - 0.5, y]);
  assert.equal(origin(drawn, [10, 10])[0], 9.5, "between two pixels is between their colours");
});

test("what is drawn is where the field says, between the cells' corners to a fraction of a pixel", () => {
  const drawn = blank();
  const pair = { handle: [20, 20], target: [28, 24] };
  const field = fadingField({ pairs: [pair], pins: [] }, [WIDTH, HEIGHT]);
  drawWarped(drawn, picture(), field);
  for (const [x, y] of [
    [28, 24],
    [20, 20],
    [33, 30],
    [45, 30],
    [5, 40],
  ]) {
    const [fromX, fromY] = field([x + 0.5, y + 0.5]);
    const [drawnX, drawnY] = origin(drawn, [x, y]);
    assert.ok(Math.hypot(drawnX + 0.5 - fromX, drawnY + 0.5 - fromY) < 0.6, `at ${x}, ${y}`);
  }
});

test("a region moves as a whole, shows what it leaves uncovered and hides what it comes upon", () => {
  const regions = regionsOfBoxes([5, 5, 25, 25]);
  const drawn = blank();
  const pairs = [{ handle: [10, 10], target: [22, 15] }];
  drawMoved(drawn, picture(), regions, pullsOf(regions, { pairs, pins: [] }));
  assert.deepEqual(origin(drawn, [17, 10]), [5, 5]);
  assert.deepEqual(origin(drawn, [36, 29]), [24, 24]);
  for (const still of [
    [37, 29],
    [36, 30],
    [2, 2],
    [30, 8],
  ])
    assert.deepEqual(origin(drawn, still), still);
  const uncovered = (x, y) => [...drawn.data.slice(4 * (y * WIDTH + x), 4 * (y * WIDTH + x) + 4)];
  for (const [x, y] of [
    [5, 5],
    [16, 24],
    [24, 9],
  ]) {
    const [red, green, blue, alpha] = uncovered(x, y);
    assert.ok(red === green && green === blue && alpha < 255, `grey at ${x}, ${y}`);
  }
});

test("regions that nothing pulls stay, and of others the later lies on top, whoever is pulled first", () => {
  const regions = regionsOfBoxes([2, 2, 12, 12], [20, 2, 30, 12], [40, 30, 50, 40]);
  const drawn = blank();
  const pairs = [
    { handle: [25, 5], target: [25, 25] },
    { handle: [5, 5], target: [28, 25] },
  ];
  for (const order of [pairs, [...pairs].reverse()]) {
    drawMoved(drawn, picture(), regions, pullsOf(regions, { pairs: order, pins: [[45, 35]] }));
    assert.deepEqual(origin(drawn, [45, 35]), [45, 35]);
    assert.deepEqual(origin(drawn, [28, 25]), [28, 5]);
    assert.deepEqual(origin(drawn, [32, 25]), [9, 5]);
  }
});

test("a pin turns its region instead of shifting it, and what leaves the picture is gone", () => {
  const regions = regionsOfBoxes([5, 5, 45, 15]);
  const drawn = blank();
  const pairs = [{ handle: [40, 10], target: [10, 40] }];
  drawMoved(drawn, picture(), regions, pullsOf(regions, { pairs, pins: [[10, 10]] }));
  const [x, y] = origin(drawn, [10, 30]);
  assert.ok(Math.abs(x - 30) < 1.5 && Math.abs(y - 10) < 1.5, `${x}, ${y}`);
  drawMoved(drawn, picture(), regions, pullsOf(regions, { pairs: [{ handle: [6, 6], target: [60, 42] }], pins: [] }));
  assert.deepEqual(origin(drawn, [60, 42]), [6, 6]);
});
