/**
 * What the pointer does to a state: it places pairs and pins, moves and removes them.
 *
 * @typedef {import("./picker_state.js").Mark} Mark
 * @typedef {import("./picker_state.js").Pointer} Pointer
 * @typedef {import("./picker_state.js").Point} Point
 * @typedef {import("./picker_state.js").State} State
 * @typedef {import("./picker_state.js").Step} Step
 */

import { added, edited, pinned, removed } from "./picker_edits.js";
import { handleWaiting, isDragging, isEditable, quietly, unfinished, withMarkAt } from "./picker_state.js";
import { boxToNormalised, clampToImage, distance, isOnImage, markAt, normalisedToBox } from "./point_geometry.js";

const GRAB_RADIUS = 13; // screen pixels
const DRAG_THRESHOLD = 4; // screen pixels; less is a click
const EDGE_TOLERANCE = 6; // screen pixels beside the image that still mean its edge

/**
 * @param {State} state
 * @param {Pointer} pointer
 * @param {boolean} shiftKey
 * @returns {Step}
 */
export function press(state, pointer, shiftKey) {
  if (!isEditable(state)) return quietly(state);
  const { gesture } = state;
  const start = pointer.client;
  if (isPinMeant(state, pointer, shiftKey)) {
    const pin = {
      kind: /** @type {const} */ ("pin"),
      handle: handleWaiting(state),
      start,
      position: placeUnder(pointer),
    };
    return capturing({ ...state, selected: null, isPinning: false, gesture: pin });
  }
  if (gesture?.kind === "unfinished") {
    if (!isOverImage(pointer)) return quietly(state);
    const { handle } = gesture;
    const position = placeUnder(pointer);
    return capturing({ ...state, gesture: { kind: "place", handle, isSecondPress: true, start, position } });
  }
  const mark = markUnder(pointer, state);
  if (mark) return capturing({ ...state, selected: mark, gesture: { kind: "move", ...mark, start, position: null } });
  if (!isOverImage(pointer)) return quietly({ ...state, selected: null });
  const handle = placeUnder(pointer);
  return capturing({
    ...state,
    selected: null,
    gesture: { kind: "place", handle, isSecondPress: false, start, position: null },
  });
}

/**
 * @param {State} before
 * @param {Pointer} pointer
 * @param {boolean} isPressed whether its button is down
 * @returns {Step}
 */
export function move(before, pointer, isPressed) {
  const state = isDragging(before) && !isPressed ? withoutDrag(before) : before;
  const { gesture } = state;
  if (gesture === null) {
    if (!isEditable(state)) return quietly(state);
    return { state, effects: [{ type: "hover", isOnMark: !state.isPinning && markUnder(pointer, state) !== null }] };
  }
  if (gesture.kind === "unfinished") {
    return quietly({ ...state, gesture: { ...gesture, towards: placeUnder(pointer) } });
  }
  const isClick = gesture.position === null && distance(gesture.start, pointer.client) < DRAG_THRESHOLD;
  return quietly(isClick ? state : { ...state, gesture: { ...gesture, position: placeUnder(pointer) } });
}

/**
 * @param {State} dragging
 * @param {Pointer} pointer
 * @returns {Step}
 */
export function release(dragging, pointer) {
  if (!isDragging(dragging)) return quietly(dragging);
  const { gesture } = dragging;
  const { position } = gesture;
  const state = { ...dragging, gesture: null };
  if (gesture.kind === "move") {
    return position === null ? quietly(state) : edited(state, withMarkAt(state, gesture, position));
  }
  if (gesture.kind === "pin") return pinned(withoutDrag(dragging), gesture.position);
  const { handle } = gesture;
  if (position !== null && areApart(handle, position, pointer)) return added(state, { handle, target: position });
  return quietly({ ...state, gesture: unfinished(handle) });
}

/**
 * A state whose drag is given up. A handle from before the drag stays.
 * @param {State} state
 * @returns {State}
 */
export function withoutDrag(state) {
  if (!isDragging(state)) return state;
  const { gesture } = state;
  const isOfThisDrag = gesture.kind === "place" && !gesture.isSecondPress;
  const handle = isOfThisDrag ? null : handleWaiting(state);
  return { ...state, gesture: handle && unfinished(handle) };
}

/**
 * @param {State} state
 * @param {Pointer} pointer
 * @returns {Step}
 */
export function removeUnder(state, pointer) {
  const mark = isEditable(state) ? markUnder(pointer, state) : null;
  if (!mark) return quietly(state);
  const { state: next, effects } = removed(state, mark);
  return { state: next, effects: [{ type: "consume" }, ...effects] };
}

/**
 * @param {Pointer} pointer
 * @returns {boolean}
 */
export function isOverImage({ box, frame, unit }) {
  return isOnImage(box, frame, EDGE_TOLERANCE * unit);
}

/**
 * @param {Pointer} pointer
 * @returns {Point} the nearest point on the image, normalised
 */
export function placeUnder({ box, frame }) {
  return clampToImage(boxToNormalised(box, frame));
}

/**
 * @param {Pointer} pointer
 * @param {State} state
 * @returns {Mark | null}
 */
function markUnder({ box, frame, unit }, state) {
  return markAt(box, state, frame, GRAB_RADIUS * unit);
}

/**
 * Shift sets pins on empty places; after the button a pin may lie upon anything.
 * @param {State} state
 * @param {Pointer} pointer
 * @param {boolean} shiftKey
 */
function isPinMeant(state, pointer, shiftKey) {
  if (!isOverImage(pointer)) return false;
  return state.isPinning || (shiftKey && markUnder(pointer, state) === null);
}

/**
 * A double click is no pair: the node refuses one whose handle is its target.
 * @param {Point} handle
 * @param {Point} target
 * @param {Pointer} pointer
 */
function areApart(handle, target, { frame, zoom }) {
  return distance(normalisedToBox(handle, frame), normalisedToBox(target, frame)) * zoom >= DRAG_THRESHOLD;
}

/**
 * @param {State} state
 * @returns {Step}
 */
function capturing(state) {
  return { state, effects: [{ type: "capture" }] };
}
