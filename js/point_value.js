/**
 * The text that the `points` input holds, and the pairs of points in it.
 *
 * Ours: `{"v": 1, "size": [width, height], "points": [{"handle": [x, y], "target": [x, y]}, ...]}`, coordinates 0..1
 * over the image, `size` that of the image they were picked on. As for the node, no `v` means 1. With pins, places that
 * must stay where they are, it is `{"v": 2, ..., "pins": [[x, y], ...]}`; the first version knows none. Also read, never
 * written: a list of points in pixels, `[{"x": 12, "y": 34}, ...]`, handle and target in turn. Empty text is no points.
 *
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_geometry.js").Size} Size
 * @typedef {{handle: Point, target: Point}} Pair
 * @typedef {{pairs: Pair[], pins: Point[]}} Points normalised
 */

import { pixelsToNormalised } from "./point_geometry.js";

const VERSION = 1;
const VERSION_WITH_PINS = 2;
const MOST_PAIRS = 1000;
const MOST_PINS = 1000;
const LONGEST_TEXT = 1_000_000;
const DECIMALS = 1e6;

/** Why a text cannot be shown, in a sentence for the user. */
class Unreadable extends Error {}

/**
 * @typedef {{v?: unknown, size?: unknown, points?: unknown, pins?: unknown}} Content
 *
 * @typedef {object} Reading
 * @property {Pair[]} pairs normalised
 * @property {Point[]} pins normalised
 * @property {Point | null} unfinished a last handle that has no target yet, normalised
 * @property {string | null} problem why the text cannot be shown; there are no points then
 * @property {boolean} needsImage whether the points are in pixels and wait for an image's size
 */

/**
 * Read a text. It never throws and never repairs: what it cannot show entirely it shows not at all.
 * @param {unknown} text
 * @param {Size | null} imageSize for points in pixels
 * @returns {Reading}
 */
export function parsePoints(text, imageSize) {
  /** @type {Reading} */
  const nothing = { pairs: [], pins: [], unfinished: null, problem: null, needsImage: false };
  try {
    const content = contentOf(text);
    if (content === null) return nothing;
    if (!Array.isArray(content)) return { ...nothing, ...normalisedPoints(content) };
    const points = content.map(pixelPoint);
    if (points.length === 0) return nothing;
    if (imageSize === null) return { ...nothing, needsImage: true };
    return { ...nothing, ...pairsInTurn(points, imageSize) };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return { ...nothing, problem: error.message };
  }
}

/**
 * The text of points; empty when there are none.
 * @param {Points} points
 * @param {Size | null} imageSize null only where there are no points
 * @returns {string}
 */
export function formatPoints({ pairs, pins }, imageSize) {
  if (pairs.length + pins.length === 0) return "";
  const points = pairs.map(({ handle, target }) => ({ handle: rounded(handle), target: rounded(target) }));
  if (pins.length === 0) return JSON.stringify({ v: VERSION, size: imageSize, points });
  return JSON.stringify({ v: VERSION_WITH_PINS, size: imageSize, points, pins: pins.map(rounded) });
}

/** @param {Point} point */
function rounded(point) {
  return point.map((coordinate) => Math.round(coordinate * DECIMALS) / DECIMALS);
}

/**
 * @param {unknown} text
 * @returns {unknown[] | Content | null} null where it is blank
 */
function contentOf(text) {
  if (typeof text !== "string") throw new Unreadable("they are not text");
  if (/^[ \t\n\r]*$/.test(text)) return null; // what JSON calls white space
  if (text.length > LONGEST_TEXT) throw new Unreadable(`the text has ${text.length} characters`);
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Unreadable("the text is not JSON");
  }
  if (content === null || typeof content !== "object") throw new Unreadable("the JSON holds no points");
  return content;
}

/**
 * @param {Content} content
 * @returns {Points}
 */
function normalisedPoints({ v = VERSION, size, points, pins = [] }) {
  if (v !== VERSION && v !== VERSION_WITH_PINS) {
    throw new Unreadable(`their version (v) is ${shown(v)}, not ${VERSION} or ${VERSION_WITH_PINS}`);
  }
  if (size !== undefined && !isSize(size)) throw new Unreadable("their size is not [width, height]");
  if (!Array.isArray(points)) throw new Unreadable('"points" is not a list');
  refuseMoreThan(MOST_PAIRS, points);
  const pairs = points.map((pair, index) => ({
    handle: normalisedPoint(pair?.handle, `the handle of pair ${index + 1}`),
    target: normalisedPoint(pair?.target, `the target of pair ${index + 1}`),
  }));
  return { pairs, pins: v === VERSION_WITH_PINS ? normalisedPins(pins) : [] };
}

/**
 * @param {unknown} pins
 * @returns {Point[]}
 */
function normalisedPins(pins) {
  if (!Array.isArray(pins)) throw new Unreadable('"pins" is not a list');
  refuseMoreThan(MOST_PINS, pins);
  return pins.map((pin, index) => normalisedPoint(pin, `pin ${index + 1}`));
}

/** @param {unknown} size */
function isSize(size) {
  return Array.isArray(size) && size.length === 2 && size.every((side) => Number.isFinite(side) && side > 0);
}

/**
 * @param {unknown} point
 * @param {string} name
 * @returns {Point}
 */
function normalisedPoint(point, name) {
  if (!Array.isArray(point) || point.length !== 2 || !point.every(Number.isFinite)) {
    throw new Unreadable(`${name} is ${shown(point)}, not [x, y]`);
  }
  return onImage([point[0], point[1]], name);
}

/**
 * @param {unknown} point
 * @param {number} index
 * @returns {Point}
 */
function pixelPoint(point, index) {
  const { x, y } = /** @type {{x?: any, y?: any}} */ (point ?? {});
  if (!Number.isFinite(x) || !Number.isFinite(y)) {
    throw new Unreadable(`point ${index + 1} is ${shown(point)}, not {"x": …, "y": …}`);
  }
  return [x, y];
}

/**
 * @param {Point[]} points in pixels
 * @param {Size} imageSize
 */
function pairsInTurn(points, imageSize) {
  refuseMoreThan(2 * MOST_PAIRS, points);
  const normalised = points.map((point, index) =>
    onImage(pixelsToNormalised(point, imageSize), `point ${index + 1}`, `, which has ${imageSize.join(" × ")} pixels`),
  );
  const pairs = [];
  for (let index = 0; index + 1 < normalised.length; index += 2) {
    pairs.push({ handle: normalised[index], target: normalised[index + 1] });
  }
  return { pairs, unfinished: normalised.length % 2 ? normalised[normalised.length - 1] : null };
}

/**
 * @param {Point} point normalised
 * @param {string} name
 */
function onImage(point, name, detail = "") {
  if (point.every((coordinate) => coordinate >= 0 && coordinate <= 1)) return point;
  throw new Unreadable(`${name} lies outside the image${detail}`);
}

/**
 * @param {number} most
 * @param {unknown[]} points
 */
function refuseMoreThan(most, points) {
  if (points.length > most) throw new Unreadable(`there are ${points.length} of them, more than ${most}`);
}

/**
 * A short name of any JSON value. Lists and objects are not spelled out: they may be endlessly deep.
 * @param {unknown} value
 */
function shown(value) {
  if (value === undefined) return "missing";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (value !== null && typeof value === "object") return "an object";
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
