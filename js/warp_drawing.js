/**
 * Draws a picture as a field warps it, pixel by pixel in plain arrays. The field is asked at the corners of small cells
 * and interpolated inside of them.
 *
 * @typedef {import("./mask_regions.js").Pull} Pull
 * @typedef {import("./mask_regions.js").Regions} Regions
 * @typedef {import("./warp_field.js").Field} Field
 * @typedef {{data: Uint8ClampedArray, width: number, height: number}} Pixels red, green, blue and alpha in turn
 * @typedef {{left: number, top: number, right: number, bottom: number, side: number, places: number[]}} Cell the pixels
 *   from left and top to before right and bottom, a square's but at the picture's edge; the places that the square's
 *   corners come from, x and y in turn, row by row
 */

import { isInRegion } from "./mask_regions.js";
import { pieceField } from "./warp_field.js";

const LARGEST_CELL = 8; // pixels
const CELLS = 32; // at least so many along the shorter side, a fraction of what a pull takes to fade out
const HATCH_WIDTH = 4; // pixels
const HATCH_GREYS = [150, 115];
const HATCH_OPACITY = 225; // of 255: what was there shines through a little

/**
 * A picture that is pulled and has no mask.
 * @param {Pixels} drawn of the picture's size
 * @param {Pixels} picture
 * @param {Field} field
 */
export function drawWarped(drawn, picture, field) {
  drawn.data.set(picture.data);
  for (const cell of cellsOf(picture, field)) {
    if (!isMoved(cell)) continue;
    forEachPixel(cell, (at, x, y) => sample(picture, x, y, drawn.data, 4 * at), picture.width);
  }
}

/**
 * A picture whose regions are pulled. What a region leaves uncovered is hatched. Of regions that meet the later one lies on top.
 * @param {Pixels} drawn of the picture's size
 * @param {Pixels} picture
 * @param {Regions} regions of the same size
 * @param {Pull[]} pulls
 */
export function drawMoved(drawn, picture, regions, pulls) {
  const { boxes, width, height } = regions;
  drawn.data.set(picture.data);
  for (const { label } of pulls) hatch(drawn, regions, label);
  for (const { label, points } of pulls) {
    const show = (/** @type {number} */ at, /** @type {number} */ x, /** @type {number} */ y) => {
      if (isInRegion(regions, label, x, y)) sample(picture, x, y, drawn.data, 4 * at);
    };
    const field = pieceField(points, [width, height], ([x, y]) => isInRegion(regions, label, x, y));
    for (const cell of cellsOf(picture, field)) {
      if (reaches(cell, boxes[label])) forEachPixel(cell, show, width);
    }
  }
}

/**
 * @param {Pixels} picture
 * @param {Field} field
 * @returns {Generator<Cell>}
 */
function* cellsOf({ width, height }, field) {
  const side = Math.min(Math.max(Math.floor(Math.min(width, height) / CELLS), 1), LARGEST_CELL);
  const columns = Math.ceil(width / side);
  const rows = Math.ceil(height / side);
  const rowOf = (/** @type {number} */ row) =>
    Array.from({ length: columns + 1 }, (_, column) => field([column * side, row * side]));
  let above = rowOf(0);
  for (let row = 0; row < rows; row++) {
    const below = rowOf(row + 1);
    for (let column = 0; column < columns; column++) {
      const [left, top] = [column * side, row * side];
      const [right, bottom] = [Math.min(left + side, width), Math.min(top + side, height)];
      const places = [...above[column], ...above[column + 1], ...below[column], ...below[column + 1]];
      yield { left, top, right, bottom, side, places };
    }
    above = below;
  }
}

/** @param {Cell} cell */
function isMoved({ left, top, side, places: [x0, y0, x1, y1, x2, y2, x3, y3] }) {
  const [right, bottom] = [left + side, top + side];
  const isStill = x0 === left && y0 === top && x1 === right && y1 === top;
  return !(isStill && x2 === left && y2 === bottom && x3 === right && y3 === bottom);
}

/**
 * Whether some of a cell may come from inside a box: all of it comes from between its corners' places.
 * @param {Cell} cell
 * @param {import("./mask_regions.js").Box} box
 */
function reaches({ places: [x0, y0, x1, y1, x2, y2, x3, y3] }, { left, top, right, bottom }) {
  return (
    Math.max(x0, x1, x2, x3) >= left &&
    Math.min(x0, x1, x2, x3) <= right &&
    Math.max(y0, y1, y2, y3) >= top &&
    Math.min(y0, y1, y2, y3) <= bottom
  );
}

/**
 * @param {Cell} cell
 * @param {(at: number, x: number, y: number) => void} visit a pixel, by its place in a picture, and where its middle
 *   comes from
 * @param {number} width of the picture
 */
function forEachPixel({ left, top, right, bottom, side, places: [x0, y0, x1, y1, x2, y2, x3, y3] }, visit, width) {
  for (let row = top; row < bottom; row++) {
    const down = (row + 0.5 - top) / side;
    const [startX, startY] = [x0 + down * (x2 - x0), y0 + down * (y2 - y0)];
    const [stepX, stepY] = [(x1 + down * (x3 - x1) - startX) / side, (y1 + down * (y3 - y1) - startY) / side];
    for (let column = left; column < right; column++) {
      const along = column + 0.5 - left;
      visit(row * width + column, startX + along * stepX, startY + along * stepY);
    }
  }
}

/**
 * Write what a picture shows at a place, between its pixels' middles too. Beyond the edge is the edge.
 * @param {Pixels} picture
 * @param {number} x
 * @param {number} y
 * @param {Uint8ClampedArray} into
 * @param {number} at
 */
function sample({ data, width, height }, x, y, into, at) {
  const left = Math.min(Math.max(x - 0.5, 0), width - 1);
  const top = Math.min(Math.max(y - 0.5, 0), height - 1);
  const [column, row] = [Math.floor(left), Math.floor(top)];
  const [across, down] = [left - column, top - row];
  const first = 4 * (row * width + column);
  const right = column + 1 < width ? 4 : 0;
  const below = row + 1 < height ? 4 * width : 0;
  for (let channel = first; channel < first + 4; channel++) {
    const above = data[channel] + across * (data[channel + right] - data[channel]);
    const under = data[channel + below] + across * (data[channel + below + right] - data[channel + below]);
    into[at + channel - first] = above + down * (under - above);
  }
}

/**
 * @param {Pixels} drawn
 * @param {Regions} regions
 * @param {number} label
 */
function hatch({ data }, { labels, boxes, width }, label) {
  const { left, top, right, bottom } = boxes[label];
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const at = row * width + column;
      if (labels[at] !== label) continue;
      const grey = HATCH_GREYS[Math.floor((column + row) / HATCH_WIDTH) % HATCH_GREYS.length];
      data.fill(grey, 4 * at, 4 * at + 3);
      data[4 * at + 3] = HATCH_OPACITY;
    }
  }
}
