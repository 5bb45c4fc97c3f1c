/** What is drawn of a point picker's state. */

import { handleWaiting, shownPoints } from "./picker_state.js";
import { arrow, pinMark, unfinishedArrow } from "./point_drawing.js";

/**
 * @param {import("./picker_state.js").State} state
 * @param {import("./point_geometry.js").Frame} frame where the image lies
 * @param {number} unit size of one screen pixel in the frame's pixels
 * @returns {SVGGElement[]}
 */
export function arrowsOf(state, frame, unit) {
  const { gesture, selected, readOnlyReason } = state;
  if (readOnlyReason) return [];
  const { pairs, pins } = shownPoints(state);
  const chosen = (/** @type {number} */ index) => (selected?.index === index ? selected.end : null);
  const arrows = pairs.map((pair, index) => arrow(pair, index, frame, unit, chosen(index)));
  const handle = handleWaiting(state);
  if (handle) arrows.push(unfinishedArrow(handle, towardsOf(gesture), arrows.length, frame, unit));
  const marks = pins.map((place, index) => pinMark(place, frame, unit, chosen(index) === "pin"));
  return [...arrows, ...marks];
}

/**
 * Where the handle that waits points to.
 * @param {import("./picker_state.js").Gesture | null} gesture
 */
function towardsOf(gesture) {
  if (gesture?.kind === "place") return gesture.position;
  return gesture?.kind === "unfinished" ? gesture.towards : null;
}
