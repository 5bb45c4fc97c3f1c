/**
 * The pieces that a mask has, and which points pull which of them. All places are in pixels of the mask.
 *
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_value.js").Points} Points
 * @typedef {{left: number, top: number, right: number, bottom: number}} Box from left and top to before right and bottom
 * @typedef {{labels: Int32Array, boxes: Box[], width: number, height: number}} Regions the number of each pixel's region,
 *   0 is none; the boxes around them, by their numbers
 * @typedef {{label: number, points: Points}} Pull a region that moves, and what pulls it
 */

const REACH = 1 / 32; // of the longer side: a point may lie so far beside the region that it means

/**
 * Number the connected pieces of a mask; pixels that touch at a corner are connected.
 * @param {Uint8Array} masked 0 is not masked
 * @param {number} width
 * @param {number} height
 * @returns {Regions}
 */
export function regionsOf(masked, width, height) {
  const labels = new Int32Array(width * height);
  const waiting = new Int32Array(width * height);
  const boxes = [{ left: 0, top: 0, right: 0, bottom: 0 }];
  for (let start = 0; start < masked.length; start++) {
    if (!masked[start] || labels[start]) continue;
    const label = boxes.length;
    const box = { left: width, top: height, right: 0, bottom: 0 };
    boxes.push(box);
    let [first, end] = [0, 1];
    waiting[0] = start;
    labels[start] = label;
    while (first < end) {
      const at = waiting[first++];
      const [x, y] = [at % width, Math.floor(at / width)];
      widen(box, x, y);
      for (let row = Math.max(y - 1, 0); row <= Math.min(y + 1, height - 1); row++) {
        for (let column = Math.max(x - 1, 0); column <= Math.min(x + 1, width - 1); column++) {
          const next = row * width + column;
          if (!masked[next] || labels[next]) continue;
          labels[next] = label;
          waiting[end++] = next;
        }
      }
    }
  }
  return { labels, boxes, width, height };
}

/**
 * @param {Box} box
 * @param {number} x
 * @param {number} y
 */
function widen(box, x, y) {
  box.left = Math.min(box.left, x);
  box.right = Math.max(box.right, x + 1);
  box.top = Math.min(box.top, y);
  box.bottom = Math.max(box.bottom, y + 1);
}

/**
 * @param {Regions} regions
 * @param {number} label
 * @param {number} x
 * @param {number} y
 */
export function isInRegion({ labels, width, height }, label, x, y) {
  if (x < 0 || y < 0 || x >= width || y >= height) return false;
  return labels[Math.floor(y) * width + Math.floor(x)] === label;
}

/**
 * The region that a place lies in, or the nearest one within reach.
 * @param {Regions} regions
 * @param {Point} place
 * @returns {number} 0 where there is none
 */
export function regionAt({ labels, width, height }, [x, y]) {
  const column = Math.min(Math.max(Math.floor(x), 0), width - 1);
  const row = Math.min(Math.max(Math.floor(y), 0), height - 1);
  if (labels[row * width + column]) return labels[row * width + column];
  const reach = REACH * Math.max(width, height);
  let [found, nearest] = [0, reach];
  for (let j = Math.max(Math.ceil(row - reach), 0); j <= Math.min(row + reach, height - 1); j++) {
    for (let i = Math.max(Math.ceil(column - reach), 0); i <= Math.min(column + reach, width - 1); i++) {
      const label = labels[j * width + i];
      const away = label ? Math.hypot(i - column, j - row) : Infinity;
      if (away > nearest || (away === nearest && found)) continue;
      [found, nearest] = [label, away];
    }
  }
  return found;
}

/**
 * The regions that have a pair, in the order of their numbers. Points that no region is near to pull nothing.
 * @param {Regions} regions
 * @param {Points} points
 * @returns {Pull[]}
 */
export function pullsOf(regions, { pairs, pins }) {
  /** @type {Map<number, Points>} */
  const byLabel = new Map();
  for (const pair of pairs) {
    const label = regionAt(regions, pair.handle);
    if (!byLabel.has(label)) byLabel.set(label, { pairs: [], pins: [] });
    byLabel.get(label)?.pairs.push(pair);
  }
  byLabel.delete(0);
  for (const pin of pins) byLabel.get(regionAt(regions, pin))?.pins.push(pin);
  return [...byLabel].map(([label, points]) => ({ label, points })).sort((a, b) => a.label - b.label);
}
