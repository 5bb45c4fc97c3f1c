/**
 * What the pointer does to a state: it places pairs, moves their ends and removes them.
 *
 * @typedef {import("./picker_state.js").EndOfPair} EndOfPair
 * @typedef {import("./picker_state.js").Pointer} Pointer
 * @typedef {import("./picker_state.js").Point} Point
 * @typedef {import("./picker_state.js").State} State
 * @typedef {import("./picker_state.js").Step} Step
 */

import { added, edited, removed } from "./picker_edits.js";
import { isDragging, isEditable, quietly, unfinished, withEndAt } from "./picker_state.js";
import { boxToNormalised, clampToImage, distance, endAt, isOnImage, normalisedToBox } from "./point_geometry.js";

const GRAB_RADIUS = 13; // screen pixels
const DRAG_THRESHOLD = 4; // screen pixels; less is a click
const EDGE_TOLERANCE = 6; // screen pixels beside the image that still mean its edge

/**
 * @param {State} state
 * @param {Pointer} pointer
 * @returns {Step}
 */
export function press(state, pointer) {
  if (!isEditable(state)) return quietly(state);
  const { gesture } = state;
  const start = pointer.client;
  if (gesture?.kind === "unfinished") {
    if (!isOverImage(pointer)) return quietly(state);
    const { handle } = gesture;
    const position = placeUnder(pointer);
    return capturing({ ...state, gesture: { kind: "place", handle, isSecondPress: true, start, position } });
  }
  const end = endUnder(pointer, state);
  if (end) return capturing({ ...state, selected: end, gesture: { kind: "move", ...end, start, position: null } });
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
    return { state, effects: [{ type: "hover", isOnEnd: endUnder(pointer, state) !== null }] };
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
    return position === null ? quietly(state) : edited(state, withEndAt(state.pairs, gesture, position));
  }
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
  const isHandleOlder = gesture.kind === "place" && gesture.isSecondPress;
  return { ...state, gesture: isHandleOlder ? unfinished(gesture.handle) : null };
}

/**
 * @param {State} state
 * @param {Pointer} pointer
 * @returns {Step}
 */
export function removeUnder(state, pointer) {
  const end = isEditable(state) ? endUnder(pointer, state) : null;
  if (!end) return quietly(state);
  const { state: next, effects } = removed(state, end.index);
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
 * @returns {EndOfPair | null}
 */
function endUnder({ box, frame, unit }, { pairs }) {
  return endAt(box, pairs, frame, GRAB_RADIUS * unit);
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
