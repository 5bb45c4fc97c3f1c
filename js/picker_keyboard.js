/**
 * What keys do to a state: they choose ends and pins, nudge them, add and remove them, and step back.
 *
 * @typedef {import("./picker_state.js").Mark} Mark
 * @typedef {import("./picker_state.js").Point} Point
 * @typedef {import("./picker_state.js").Size} Size
 * @typedef {import("./picker_state.js").State} State
 * @typedef {import("./picker_state.js").Step} Step
 */

import { added, changed, edited, pinned, removed } from "./picker_edits.js";
import { withoutDrag } from "./picker_pointer.js";
import { handleWaiting, isEditable, quietly, withMarkAt } from "./picker_state.js";
import { marksOf, normalisedToPixels, pixelsToNormalised, placeOf } from "./point_geometry.js";
import { parsePoints } from "./point_value.js";

/** @type {Point} */
const MIDDLE = [0.5, 0.5];
const NEW_PAIR_LENGTH = 0.1; // of the image's width
const LARGE_STEP = 10; // image pixels, with Shift
const DELETE_KEYS = ["Delete", "Backspace"];
/** @type {Record<string, Point>} */
const ARROW_KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
/** @type {Record<string, number>} not every keyboard has brackets at hand */
const CHOICE_KEYS = { "[": -1, "]": 1, PageUp: -1, PageDown: 1 };

/**
 * Keys that mean nothing here go on to whoever holds the editor. Delete never does: whoever presses it once more than
 * there are points does not mean to delete the editor.
 * @param {State} state
 * @param {{key: string, shiftKey: boolean}} pressed without Control, Alt and Meta
 * @returns {Step}
 */
export function pressKey(state, pressed) {
  const step = isEditable(state) ? stepOf(state, pressed) : null;
  const isKept = step !== null || DELETE_KEYS.includes(pressed.key);
  const { state: next, effects } = step ?? quietly(state);
  return { state: next, effects: isKept ? [...effects, { type: "consume" }] : effects };
}

/**
 * A held arrow key repeats; the edit ends when it is let go.
 * @param {State} state
 * @returns {Step}
 */
export function letGo(state) {
  return state.isNudging ? { state: { ...state, isNudging: false }, effects: [{ type: "endEdit" }] } : quietly(state);
}

/**
 * @param {State & {imageSize: Size}} state
 * @param {{key: string, shiftKey: boolean}} pressed
 * @returns {Step | null} null where the key means nothing
 */
function stepOf(state, { key, shiftKey }) {
  if (key === "Escape") return stepBack(state);
  if (key === "Enter") return shiftKey || state.isPinning ? pinTheMiddle(state) : addInTheMiddle(state);
  if (key in CHOICE_KEYS) return selectNext(state, CHOICE_KEYS[key]);
  const { selected } = state;
  if (!selected) return null;
  if (DELETE_KEYS.includes(key)) return removed(state, selected);
  return key in ARROW_KEYS ? nudge(state, selected, ARROW_KEYS[key], shiftKey ? LARGE_STEP : 1) : null;
}

/**
 * A handle that is in the text is to leave the text too: the node refuses an odd number of points.
 * @param {State} state
 * @returns {Step | null}
 */
function stepBack(state) {
  if (state.isPinning) return quietly({ ...state, isPinning: false });
  if (state.gesture?.kind === "pin") return quietly(withoutDrag(state));
  if (!state.gesture) return state.selected ? quietly({ ...state, selected: null }) : null;
  const rest = { ...state, gesture: null };
  return parsePoints(state.text, state.imageSize).unfinished ? edited(rest, {}) : quietly(rest);
}

/**
 * @param {State} state
 * @returns {Step}
 */
function addInTheMiddle(state) {
  const [x, y] = handleWaiting(state) ?? MIDDLE;
  const length = x + NEW_PAIR_LENGTH <= 1 ? NEW_PAIR_LENGTH : -NEW_PAIR_LENGTH;
  return added(state, { handle: [x, y], target: [x + length, y] });
}

/**
 * @param {State} state
 * @returns {Step}
 */
function pinTheMiddle(state) {
  return pinned({ ...withoutDrag(state), isPinning: false }, MIDDLE);
}

/**
 * @param {State} state
 * @param {number} step 1 or -1
 * @returns {Step | null}
 */
function selectNext(state, step) {
  const marks = marksOf(state);
  if (marks.length === 0) return null;
  const now = marks.findIndex(({ index, end }) => index === state.selected?.index && end === state.selected.end);
  const next = now < 0 && step < 0 ? marks.length - 1 : now + step; // with none selected, step in from either side
  return quietly({ ...state, selected: marks[(next + marks.length) % marks.length] });
}

/**
 * @param {State & {imageSize: Size}} state
 * @param {Mark} selected
 * @param {Point} direction
 * @param {number} pixels of the image
 * @returns {Step}
 */
function nudge(state, selected, [dx, dy], pixels) {
  const { imageSize } = state;
  const [x, y] = normalisedToPixels(placeOf(state, selected), imageSize);
  const position = pixelsToNormalised([x + dx * pixels, y + dy * pixels], imageSize);
  return changed({ ...state, isNudging: true }, withMarkAt(state, selected, position));
}
