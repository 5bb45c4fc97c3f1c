/**
 * What a point picker says about its state.
 *
 * @typedef {import("./picker_state.js").State} State
 */

import { isEditable } from "./picker_state.js";

/**
 * What is written in place of the image, or on it.
 * @param {State} state
 * @param {string} placeholder what to do to see an image
 * @returns {string}
 */
export function messageOf(state, placeholder) {
  if (state.readOnlyReason) return state.readOnlyReason;
  if (state.problem) {
    return `These points cannot be shown: ${state.problem}. Their text is kept until you press Clear.`;
  }
  return state.imageSize ? "" : `${placeholder} ${keptOf(state)}`;
}

/**
 * What to do next.
 * @param {State} state
 * @param {string} maskNote what there is to say about the mask
 * @returns {string}
 */
export function hintOf(state, maskNote) {
  if (!isEditable(state)) return "";
  if (state.isPinning) return "Click what must stay where it is. Esc cancels.";
  if (state.gesture?.kind === "pin") return "Let go to set the pin. Esc cancels.";
  if (state.gesture) return "Now its target: click or drag. Esc cancels.";
  if (maskNote) return maskNote;
  if (state.pairs.length === 0) return "Click a handle, then its target, or drag. Shift+click to pin.";
  return "Drag ends to move, right click to remove, Shift+click to pin.";
}

/** @param {State} state */
function keptOf({ needsImage, pairs, pins }) {
  if (needsImage) return "The points are kept.";
  const ofPairs = `${pairs.length} ${pairs.length === 1 ? "pair" : "pairs"} of points`;
  const ofPins = `${pins.length} ${pins.length === 1 ? "pin" : "pins"}`;
  const kept = [...(pairs.length ? [ofPairs] : []), ...(pins.length ? [ofPins] : [])];
  return kept.length ? `${kept.join(" and ")} kept.` : "";
}
