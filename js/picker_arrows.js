/** What is drawn of a point picker's state. */

import { shownPairs } from "./picker_state.js";
import { arrow, unfinishedArrow } from "./point_drawing.js";

/**
 * @param {import("./picker_state.js").State} state
 * @param {import("./point_geometry.js").Frame} frame where the image lies
 * @param {number} unit size of one screen pixel in the frame's pixels
 * @returns {SVGGElement[]}
 */
export function arrowsOf(state, frame, unit) {
  const { gesture, selected, readOnlyReason } = state;
  if (readOnlyReason) return [];
  const arrows = shownPairs(state).map((pair, index) =>
    arrow(pair, index, frame, unit, selected?.index === index ? selected.end : null),
  );
  if (gesture && gesture.kind !== "move") {
    const towards = gesture.kind === "place" ? gesture.position : gesture.towards;
    arrows.push(unfinishedArrow(gesture.handle, towards, arrows.length, frame, unit));
  }
  return arrows;
}
