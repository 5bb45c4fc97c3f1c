import assert from "node:assert/strict";
import { test } from "node:test";

import { pullsOf, regionAt, regionsOf } from "../../js/mask_regions.js";

/** The regions of a drawing in which # is masked. */
function drawn(...rows) {
  const masked = Uint8Array.from(rows.join(""), (letter) => (letter === "#" ? 1 : 0));
  return regionsOf(masked, rows[0].length, rows.length);
}

/** Two squares of 20 pixels, 64 × 32 in all: within two pixels beside one it is meant. */
function squares() {
  const masked = new Uint8Array(64 * 32);
  for (let y = 5; y < 25; y++) masked.fill(1, 64 * y + 5, 64 * y + 25).fill(1, 64 * y + 35, 64 * y + 55);
  return regionsOf(masked, 64, 32);
}

test("pieces are connected at corners too", () => {
  const { labels, boxes } = drawn("##..#", "..#..", "....#", "#..#.");
  const at = (x, y) => labels[5 * y + x];
  assert.equal(at(0, 0), at(2, 1));
  assert.notEqual(at(0, 0), at(4, 0));
  assert.equal(at(4, 2), at(3, 3));
  assert.notEqual(at(0, 3), at(3, 3));
  assert.equal(at(2, 0), 0);
  assert.deepEqual(boxes[at(0, 0)], { left: 0, top: 0, right: 3, bottom: 2 });
});

test("a picture without a mask has no region, one that is all mask has one", () => {
  assert.deepEqual(new Set(drawn("...", "...").labels), new Set([0]));
  assert.deepEqual(new Set(drawn("###", "###").labels), new Set([1]));
});

test("a place means the region it lies in, or the nearest within a 32nd of the longer side", () => {
  const regions = squares();
  assert.equal(regionAt(regions, [24.9, 24.9]), 1);
  assert.equal(regionAt(regions, [35, 10]), 2);
  assert.equal(regionAt(regions, [26.9, 10]), 1, "two pixels further");
  assert.equal(regionAt(regions, [27, 10]), 0);
  assert.equal(regionAt(regions, [33, 10]), 2);
  assert.equal(regionAt(regions, [26, 4]), 0, "and as many up");
  assert.equal(regionAt(regions, [64, 32]), 0, "the far corner lies on the picture");
});

test("points pull the region they mean; pins alone pull none, others than these nothing", () => {
  const first = { handle: [40, 10], target: [10, 10] };
  const second = { handle: [10, 10], target: [12, 10] };
  const third = { handle: [50, 20], target: [0, 0] };
  const stray = { handle: [60, 30], target: [40, 10] };
  const pins = [
    [36, 6],
    [6, 6],
    [63, 1],
  ];
  assert.deepEqual(pullsOf(squares(), { pairs: [first, second, third, stray], pins }), [
    { label: 1, points: { pairs: [second], pins: [pins[1]] } },
    { label: 2, points: { pairs: [first, third], pins: [pins[0]] } },
  ]);
  assert.deepEqual(pullsOf(squares(), { pairs: [], pins }), []);
});
