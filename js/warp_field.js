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

const LEAST_SQUARE = 1e-9; // of distances: at a control itself the weight stays finite
const LEAST_LENGTH = 1e-12; // of what the turn is read from
const NEAR = 1 / 8; // of the picture's shorter side: so far from a pull everything goes along

/**
 * Rigid moving least squares (Schaefer, McPhail and Warren 2006): of all turns and shifts the one that brings the
 * controls nearest to their images, where those count more that are nearer to the place.
 * @param {Point} place
 * @param {Point[]} controls one or more
 * @param {Point[]} images as many
 * @returns {Point}
 */
export function movingLeastSquares([x, y], controls, images) {
  if (controls.length === 1) return [x + images[0][0] - controls[0][0], y + images[0][1] - controls[0][1]];
  let [total, px, py, qx, qy] = [0, 0, 0, 0, 0];
  for (let index = 0; index < controls.length; index++) {
    const [controlX, controlY] = controls[index];
    const [imageX, imageY] = images[index];
    const weight = weightOf(x - controlX, y - controlY);
    total += weight;
    px += weight * controlX;
    py += weight * controlY;
    qx += weight * imageX;
    qy += weight * imageY;
  }
  [px, py, qx, qy] = [px / total, py / total, qx / total, qy / total];
  let [along, across] = [0, 0];
  for (let index = 0; index < controls.length; index++) {
    const [controlX, controlY] = controls[index];
    const weight = weightOf(x - controlX, y - controlY);
    const [fromX, fromY] = [controlX - px, controlY - py];
    const [toX, toY] = [images[index][0] - qx, images[index][1] - qy];
    along += weight * (fromX * toX + fromY * toY);
    across += weight * (fromX * toY - fromY * toX);
  }
  const length = Math.max(Math.hypot(along, across), LEAST_LENGTH);
  const [cosine, sine] = [along / length, across / length];
  const [dx, dy] = [x - px, y - py];
  return [cosine * dx - sine * dy + qx, sine * dx + cosine * dy + qy];
}

/**
 * The field of a pull that no mask bounds: it fades out with the distance from the ways of the pairs.
 * @param {Points} points in pixels
 * @param {Size} size of the picture
 * @returns {Field}
 */
export function fadingField(points, size) {
  const { pairs } = points;
  const longest = pairs.reduce((most, { handle, target }) => Math.max(most, distance(handle, target)), 0);
  if (longest === 0) return (place) => place;
  const pulled = steadyField(points);
  const near = NEAR * Math.min(...size);
  return (place) => {
    const away = pairs.reduce((least, pair) => Math.min(least, distanceToWay(place, pair)), Infinity);
    const share = 1 - smoothStep((away - near) / (2 * longest));
    if (share === 0) return place;
    const [x, y] = pulled(place);
    return [place[0] + share * (x - place[0]), place[1] + share * (y - place[1])];
  };
}

/**
 * The field of a pull that does not fade, for a piece of the picture that moves as a whole.
 * @param {Points} points in pixels; one or more
 * @returns {Field}
 */
export function steadyField({ pairs, pins }) {
  const controls = [...pairs.map(({ target }) => target), ...pins];
  const images = [...pairs.map(({ handle }) => handle), ...pins];
  return (place) => movingLeastSquares(place, controls, images);
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
 * How far a place is from the line between handle and target.
 * @param {Point} place
 * @param {Pair} pair
 */
function distanceToWay([x, y], { handle, target }) {
  const [dx, dy] = [target[0] - handle[0], target[1] - handle[1]];
  const square = dx * dx + dy * dy;
  const along = square === 0 ? 0 : ((x - handle[0]) * dx + (y - handle[1]) * dy) / square;
  const t = Math.min(Math.max(along, 0), 1);
  return Math.hypot(x - handle[0] - t * dx, y - handle[1] - t * dy);
}
