/**
 * Where each place of a pulled picture comes from. All places are in pixels of the picture.
 *
 * A field is a backward map: what is seen at a place lies, in the plain picture, at the place that the field gives. Its
 * controls are the targets and the pins, their images the handles and the pins again.
 *
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_geometry.js").Size} Size
 * @typedef {import("./point_value.js").Pair} Pair
 * @typedef {import("./point_value.js").Points} Points
 * @typedef {(place: Point) => Point} Field
 */

import { distance } from "./point_geometry.js";
import { unfolded } from "./warp_folds.js";

const LEAST_SQUARE = 1e-9; // of distances: at a control itself the weight stays finite
const LEAST_LENGTH = 1e-12; // of what the turn is read from
export const RADIUS = 1 / 4; // of the picture's shorter side: so far from a pull everything goes along

/**
 * Rigid moving least squares (Schaefer, McPhail and Warren 2006): of all turns and shifts the one that brings the
 * controls nearest to their images, where those count more that are nearer to the place.
 * @param {Point} place
 * @param {Point[]} controls one or more
 * @param {Point[]} images as many
 * @returns {Point}
 */
export function movingLeastSquares(place, controls, images) {
  const [x, y] = place;
  if (controls.length === 1) return [x + images[0][0] - controls[0][0], y + images[0][1] - controls[0][1]];
  let total = 0;
  let px = 0;
  let py = 0;
  let qx = 0;
  let qy = 0;
  for (let index = 0; index < controls.length; index++) {
    const control = controls[index];
    const image = images[index];
    const weight = weightOf(x - control[0], y - control[1]);
    total += weight;
    px += weight * control[0];
    py += weight * control[1];
    qx += weight * image[0];
    qy += weight * image[1];
  }
  px /= total;
  py /= total;
  qx /= total;
  qy /= total;
  let along = 0;
  let across = 0;
  for (let index = 0; index < controls.length; index++) {
    const control = controls[index];
    const image = images[index];
    const weight = weightOf(x - control[0], y - control[1]);
    const fromX = control[0] - px;
    const fromY = control[1] - py;
    const toX = image[0] - qx;
    const toY = image[1] - qy;
    along += weight * (fromX * toX + fromY * toY);
    across += weight * (fromX * toY - fromY * toX);
  }
  const length = Math.max(Math.hypot(along, across), LEAST_LENGTH);
  const cosine = along / length;
  const sine = across / length;
  return [cosine * (x - px) - sine * (y - py) + qx, sine * (x - px) + cosine * (y - py) + qy];
}

/**
 * The field of a pull that no mask bounds: it fades out with the distance from the ways of the pairs.
 * @param {Points} points in pixels
 * @param {Size} size of the picture
 * @param {number} [radius] within which all goes along, as a share of the picture's shorter side
 * @returns {Field}
 */
export function fadingField(points, size, radius = RADIUS) {
  const shareAt = shareNear(points.pairs, size, radius);
  return unfolded(
    (parts) => steadyField(points, parts, shareAt),
    (place) => shareAt(place) > 0,
    size,
  );
}

/**
 * How much of a pull's move a place makes: all within a radius of the pairs' ways, none beyond twice the longest way more.
 * @param {Pair[]} pairs in pixels
 * @param {Size} size of the picture
 * @param {number} radius as a share of the picture's shorter side
 * @returns {(place: Point) => number}
 */
export function shareNear(pairs, size, radius) {
  const longest = pairs.reduce((most, { handle, target }) => Math.max(most, distance(handle, target)), 0);
  if (longest === 0) return () => 0;
  const near = radius * Math.min(...size);
  return (place) => {
    let least = Infinity;
    for (const pair of pairs) least = Math.min(least, squareToWay(place, pair));
    return 1 - smoothStep((Math.sqrt(least) - near) / (2 * longest));
  };
}

/**
 * The field of a pull that moves a piece of the picture as a whole.
 * @param {Points} points in pixels; one or more
 * @param {Size} size of the picture
 * @param {(place: Point) => boolean} isInPiece
 * @returns {Field}
 */
export function pieceField(points, size, isInPiece) {
  return unfolded((parts) => steadyField(points, parts), isInPiece, size);
}

/**
 * @param {Points} points in pixels; one or more
 * @param {number} [parts] into which the way of each point is cut; the field goes back over one after another
 * @param {(place: Point) => number} [shareAt] how much of each part's move a place makes
 * @returns {Field}
 */
export function steadyField({ pairs, pins }, parts = 1, shareAt = () => 1) {
  const after = [...pairs.map(({ target }) => target), ...pins];
  const before = [...pairs.map(({ handle }) => handle), ...pins];
  const stations = Array.from({ length: parts + 1 }, (_, part) =>
    after.map((place, index) => between(place, before[index], part / parts)),
  );
  return (place) => {
    let at = place;
    for (let part = 0; part < parts; part++) {
      const share = shareAt(at);
      if (share === 0) break; // it moves no more
      const moved = movingLeastSquares(at, stations[part], stations[part + 1]);
      at = share === 1 ? moved : between(at, moved, share);
    }
    return at;
  };
}

/**
 * @param {Point} from
 * @param {Point} to
 * @param {number} share of the way
 * @returns {Point}
 */
function between([x, y], [toX, toY], share) {
  return [x + share * (toX - x), y + share * (toY - y)];
}

/**
 * @param {number} dx
 * @param {number} dy
 */
function weightOf(dx, dy) {
  return 1 / Math.max(dx * dx + dy * dy, LEAST_SQUARE);
}

/** @param {number} value 0 below 0, 1 above 1 */
function smoothStep(value) {
  const t = Math.min(Math.max(value, 0), 1);
  return t * t * (3 - 2 * t);
}

/**
 * How far a place is from the line between handle and target, squared.
 * @param {Point} place
 * @param {Pair} pair
 */
function squareToWay(place, { handle, target }) {
  const dx = target[0] - handle[0];
  const dy = target[1] - handle[1];
  const x = place[0] - handle[0];
  const y = place[1] - handle[1];
  const square = dx * dx + dy * dy;
  const t = square === 0 ? 0 : Math.min(Math.max((x * dx + y * dy) / square, 0), 1);
  return (x - t * dx) ** 2 + (y - t * dy) ** 2;
}
