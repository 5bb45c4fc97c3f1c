/**
 * Fields that do not fold a picture over itself.
 *
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_geometry.js").Size} Size
 * @typedef {import("./warp_field.js").Field} Field
 */

const PARTS = [1, 2, 4, 8, 16, 32]; // into which a pull is cut until it does not fold
const FOLDED = 0.01; // share of what moves that may fold: the field's kinks at its controls
const GRID = 64; // places along the longer side at which folds are looked for

/**
 * The field of the fewest parts that does not fold where something moves, else that of the most.
 * @param {(parts: number) => Field} make
 * @param {(place: Point) => boolean} isMoved
 * @param {Size} size of the picture
 * @returns {Field}
 */
export function unfolded(make, isMoved, size) {
  let field = make(PARTS[0]);
  for (const parts of PARTS) {
    field = make(parts);
    if (foldedShare(field, isMoved, size) <= FOLDED) break;
  }
  return field;
}

/**
 * @param {Field} field
 * @param {(place: Point) => boolean} isMoved
 * @param {Size} size
 */
function foldedShare(field, isMoved, [width, height]) {
  const stride = Math.max(1, Math.max(width, height) / GRID);
  const rowAt = (/** @type {number} */ row) =>
    Array.from({ length: Math.round(width / stride) }, (_, column) =>
      field([(column + 0.5) * stride, (row + 0.5) * stride]),
    );
  let [moved, turned] = [0, 0];
  let above = rowAt(0);
  for (let row = 1; row < Math.round(height / stride); row++) {
    const below = rowAt(row);
    for (let column = 0; column + 1 < above.length; column++) {
      if (!isMoved(above[column])) continue;
      moved += 1;
      if (isTurnedOver(above[column], above[column + 1], below[column])) turned += 1;
    }
    above = below;
  }
  return moved === 0 ? 0 : turned / moved;
}

/**
 * @param {Point} corner
 * @param {Point} right what comes right of it
 * @param {Point} below
 */
function isTurnedOver([x, y], right, below) {
  return (right[0] - x) * (below[1] - y) - (right[1] - y) * (below[0] - x) <= 0;
}
