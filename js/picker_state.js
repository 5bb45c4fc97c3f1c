/**
 * What a point picker knows: its text, the points it reads there, and the gesture under way. A state never changes;
 * an event is answered with the next state and its effects (picker_update.js).
 *
 * @typedef {import("./point_geometry.js").End} End
 * @typedef {import("./point_geometry.js").Frame} Frame
 * @typedef {import("./point_geometry.js").Mark} Mark
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_geometry.js").Size} Size
 * @typedef {import("./point_value.js").Pair} Pair
 * @typedef {import("./point_value.js").Points} Points
 */

import { clampToImage } from "./point_geometry.js";

/**
 * @typedef {object} State
 * @property {string} text the value
 * @property {Pair[]} pairs what the text says, normalised
 * @property {Point[]} pins what it says too
 * @property {string | null} problem why the text cannot be shown
 * @property {boolean} needsImage whether the text counts in pixels and waits for an image
 * @property {Size | null} imageSize null where no image is shown
 * @property {string | null} readOnlyReason why nothing may be edited
 * @property {Mark | null} selected
 * @property {Gesture | null} gesture
 * @property {boolean} isPinning whether the next press sets a pin
 * @property {boolean} isNudging whether arrow keys have changed something that no edit holds yet
 *
 * @typedef {{kind: "unfinished", handle: Point, towards: Point | null}} Unfinished a handle waits for its target
 * @typedef {{kind: "place", handle: Point, isSecondPress: boolean, start: Point, position: Point | null}} Place the
 *   button is down after a handle, or after its target where `isSecondPress`
 * @typedef {{kind: "pin", handle: Point | null, start: Point, position: Point}} Pin the button is down where a pin is to
 *   be; a handle may wait meanwhile
 * @typedef {{kind: "move", index: number, end: Mark["end"], start: Point, position: Point | null}} Move the button is down
 *   on an end or a pin
 * @typedef {Unfinished | Place | Pin | Move} Gesture `start` is in the window's pixels; the other points are normalised.
 *   `position` is null until the pointer has moved so far that it drags
 */

/**
 * @typedef {object} Pointer where the pointer is, and how the image lies under it
 * @property {Point} client in the window's pixels
 * @property {Point} box in the drawing's pixels
 * @property {Frame} frame where the image lies in the drawing
 * @property {number} unit how many of the drawing's pixels a mark of one screen pixel takes
 * @property {number} zoom how many screen pixels one of the drawing's is
 *
 * @typedef {{type: "press", pointer: Pointer, shiftKey: boolean}
 *   | {type: "release" | "remove", pointer: Pointer}
 *   | {type: "move", pointer: Pointer, isPressed: boolean}
 *   | {type: "cancel"}
 *   | {type: "key", key: string, shiftKey: boolean}
 *   | {type: "letGo"}
 *   | {type: "enter", end: Mark["end"], pixels: Point}
 *   | {type: "swap" | "clear" | "pin"}
 *   | {type: "text", text: string}
 *   | {type: "image", size: Size | null}
 *   | {type: "lock", reason: string | null}} PickerEvent by pointer and keyboard, by the tools, and from outside: undo
 *   comes as another text
 *
 * @typedef {{type: "change", text: string} | {type: "endEdit"} | {type: "capture"} | {type: "consume"}
 *   | {type: "hover", isOnMark: boolean}} Effect tell another text; tell that an edit is done, for undo; hold the pointer;
 *   keep the event from others; show whether the pointer can grab a mark
 * @typedef {{state: State, effects: Effect[]}} Step
 */

/** @type {State} */
export const EMPTY = Object.freeze({
  text: "",
  pairs: [],
  pins: [],
  problem: null,
  needsImage: false,
  imageSize: null,
  readOnlyReason: null,
  selected: null,
  gesture: null,
  isPinning: false,
  isNudging: false,
});

/**
 * @param {State} state
 * @returns {state is State & {imageSize: Size}}
 */
export function isEditable(state) {
  return !state.readOnlyReason && !state.problem && !state.needsImage && state.imageSize !== null;
}

/**
 * @param {State} state
 * @returns {state is Omit<State, "gesture"> & {gesture: Place | Pin | Move}}
 */
export function isDragging(state) {
  return state.gesture !== null && state.gesture.kind !== "unfinished";
}

/**
 * The points as they are drawn: what is dragged is where the pointer is.
 * @param {State} state
 * @returns {Points}
 */
export function shownPoints({ pairs, pins, gesture }) {
  if (gesture?.kind === "pin") return { pairs, pins: [...pins, gesture.position] };
  if (gesture?.kind !== "move" || gesture.position === null) return { pairs, pins };
  return withMarkAt({ pairs, pins }, gesture, gesture.position);
}

/**
 * The points as they would be if the pointer let go now of what it pulls.
 * @param {State} state
 * @returns {Points | null} null where it pulls nothing
 */
export function pulledPoints(state) {
  if (!isDragging(state) || state.gesture.position === null) return null;
  const points = shownPoints(state);
  if (state.gesture.kind !== "place") return points;
  const { handle, position: target } = state.gesture;
  return { ...points, pairs: [...points.pairs, { handle, target }] };
}

/**
 * Points, one of which is elsewhere.
 * @param {Points} points
 * @param {Mark} mark
 * @param {Point} position normalised
 * @returns {Points}
 */
export function withMarkAt({ pairs, pins }, { index, end }, position) {
  const place = clampToImage(position);
  if (end === "pin") return { pairs, pins: pins.map((pin, at) => (at === index ? place : pin)) };
  return { pairs: pairs.map((pair, at) => (at === index ? { ...pair, [end]: place } : pair)), pins };
}

/**
 * The handle that has no target yet.
 * @param {State} state
 * @returns {Point | null}
 */
export function handleWaiting({ gesture }) {
  return gesture === null || gesture.kind === "move" ? null : gesture.handle;
}

/**
 * @param {Point} handle
 * @returns {Unfinished}
 */
export function unfinished(handle) {
  return { kind: "unfinished", handle, towards: null };
}

/**
 * A step without effects.
 * @param {State} state
 * @returns {Step}
 */
export function quietly(state) {
  return { state, effects: [] };
}
