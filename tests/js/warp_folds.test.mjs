import assert from "node:assert/strict";
import { test } from "node:test";

import { pieceField, steadyField } from "../../js/warp_field.js";
import { unfolded } from "../../js/warp_folds.js";

const SIZE = [320, 200];
const everywhere = () => true;
const same = (place) => place;
const mirrored = ([x, y]) => [SIZE[0] - x, y];

/** The share of a picture that a field turns over. */
function turnedShare(field) {
  let turned = 0;
  for (let y = 1; y < SIZE[1]; y += 2) {
    for (let x = 1; x < SIZE[0]; x += 2) {
      const [[x0, y0], [x1, y1], [x2, y2]] = [field([x, y]), field([x + 1, y]), field([x, y + 1])];
      if ((x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0) <= 0) turned += 4;
    }
  }
  return turned / (SIZE[0] * SIZE[1]);
}

/** The number of parts of the field that is taken, where those of fewer than `enough` fold. */
function partsTaken(enough, isMoved) {
  let taken = 0;
  unfolded(
    (parts) => {
      taken = parts;
      return parts < enough ? mirrored : same;
    },
    isMoved,
    SIZE,
  );
  return taken;
}

test("the fewest parts that do not fold are taken, else the most", () => {
  for (const enough of [1, 2, 32]) assert.equal(partsTaken(enough, everywhere), enough);
  assert.equal(partsTaken(99, everywhere), 32);
});

test("what does not move may fold", () => {
  assert.equal(
    partsTaken(99, () => false),
    1,
  );
  assert.equal(
    partsTaken(99, ([x, y]) => x + y < 20),
    32,
    "but nothing that moves",
  );
});

test("in parts too a target shows its handle, and a pin itself", () => {
  const points = { pairs: [{ handle: [60, 60], target: [200, 120] }], pins: [[150, 20]] };
  for (const parts of [1, 2, 8]) {
    const field = steadyField(points, parts);
    for (const [shown, from] of [
      [
        [200, 120],
        [60, 60],
      ],
      [
        [150, 20],
        [150, 20],
      ],
    ]) {
      field(shown).forEach((coordinate, axis) => {
        assert.ok(Math.abs(coordinate - from[axis]) < 1e-4, `${field(shown)} is not ${from}`);
      });
    }
  }
});

test("what is pulled far past pins folds at once, in parts it does not", () => {
  const pins = [
    [100, 40],
    [100, 160],
    [40, 100],
    [250, 50],
  ];
  const points = { pairs: [{ handle: [100, 100], target: [260, 100] }], pins };
  assert.ok(turnedShare(steadyField(points)) > 0.1);
  assert.equal(turnedShare(pieceField(points, SIZE, everywhere)), 0);
});
