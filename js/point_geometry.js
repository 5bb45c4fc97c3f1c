/**
 * Where an image lies in a box, and points on it.
 *
 * A point is `[x, y]`. Three spaces: the box (pixels of the element that shows the image), the image's own pixels, and
 * normalised (0..1 over the image, 0 its left or top edge, 1 its right or bottom edge). All are continuous.
 *
 * @typedef {[number, number]} Point
 * @typedef {[number, number]} Size width and height
 * @typedef {"handle" | "target"} End
 * @typedef {{index: number, end: End | "pin"}} Mark an end, by its pair's place in the list, or a pin, by its own
 * @typedef {{x: number, y: number, width: number, height: number}} Frame
 */

/**
 * The frame of an image that is scaled to fit a box and centred in it, in the box's pixels.
 * @param {Size} boxSize
 * @param {Size} imageSize
 * @returns {Frame}
 */
export function letterbox([boxWidth, boxHeight], [imageWidth, imageHeight]) {
  const scale = Math.min(boxWidth / imageWidth, boxHeight / imageHeight);
  const width = imageWidth * scale;
  const height = imageHeight * scale;
  return { x: (boxWidth - width) / 2, y: (boxHeight - height) / 2, width, height };
}

/**
 * A place in the window as one in an element, whatever CSS transforms scale the element on its way to the screen.
 * @param {Point} client
 * @param {{left: number, top: number, width: number, height: number}} rect the element's bounding rectangle
 * @param {Size} size the element's own, before any transform
 * @returns {Point}
 */
export function clientToBox([clientX, clientY], rect, [width, height]) {
  return [((clientX - rect.left) * width) / rect.width, ((clientY - rect.top) * height) / rect.height];
}

/**
 * @param {Point} point in the box's pixels
 * @param {Frame} frame
 * @returns {Point} normalised; outside 0..1 where the box's point is not on the image
 */
export function boxToNormalised([x, y], frame) {
  return [(x - frame.x) / frame.width, (y - frame.y) / frame.height];
}

/**
 * @param {Point} point normalised
 * @param {Frame} frame
 * @returns {Point} in the box's pixels
 */
export function normalisedToBox([x, y], frame) {
  return [frame.x + x * frame.width, frame.y + y * frame.height];
}

/**
 * @param {Point} point normalised
 * @param {Size} size of the image
 * @returns {Point} in the image's pixels
 */
export function normalisedToPixels([x, y], [width, height]) {
  return [x * width, y * height];
}

/**
 * @param {Point} point in the image's pixels
 * @param {Size} size of the image
 * @returns {Point} normalised
 */
export function pixelsToNormalised([x, y], [width, height]) {
  return [x / width, y / height];
}

/**
 * @param {Point} point normalised
 * @returns {Point} the nearest point on the image, normalised
 */
export function clampToImage([x, y]) {
  return [Math.min(Math.max(x, 0), 1), Math.min(Math.max(y, 0), 1)];
}

/**
 * @param {Point} from
 * @param {Point} to
 * @returns {number}
 */
export function distance([x1, y1], [x2, y2]) {
  return Math.hypot(x2 - x1, y2 - y1);
}

/**
 * Whether a point of the box lies on the image or no more than `margin` beside it.
 * @param {Point} point
 * @param {Frame} frame
 * @param {number} margin in the box's pixels
 */
export function isOnImage([x, y], frame, margin) {
  return (
    x >= frame.x - margin &&
    x <= frame.x + frame.width + margin &&
    y >= frame.y - margin &&
    y <= frame.y + frame.height + margin
  );
}

/**
 * The mark under a point of the box: the nearest within `radius`. Of marks at one place a pin wins, then the later
 * pair's, and its target, as they are drawn on top.
 * @param {Point} point
 * @param {{pairs: {handle: Point, target: Point}[], pins: Point[]}} points normalised
 * @param {Frame} frame
 * @param {number} radius in the box's pixels
 * @returns {Mark | null}
 */
export function markAt(point, points, frame, radius) {
  /** @type {Mark | null} */
  let found = null;
  let nearest = radius;
  for (const mark of marksOf(points)) {
    const away = distance(point, normalisedToBox(placeOf(points, mark), frame));
    if (away <= nearest) {
      nearest = away;
      found = mark;
    }
  }
  return found;
}

/**
 * All marks, in the order in which they are drawn.
 * @param {{pairs: unknown[], pins: unknown[]}} points
 * @returns {Mark[]}
 */
export function marksOf({ pairs, pins }) {
  /** @type {End[]} */
  const ends = ["handle", "target"];
  const ofPairs = pairs.flatMap((_, index) => ends.map((end) => ({ index, end })));
  return [...ofPairs, ...pins.map((_, index) => ({ index, end: /** @type {const} */ ("pin") }))];
}

/**
 * @param {{pairs: {handle: Point, target: Point}[], pins: Point[]}} points
 * @param {Mark} mark
 * @returns {Point}
 */
export function placeOf({ pairs, pins }, { index, end }) {
  return end === "pin" ? pins[index] : pairs[index][end];
}
