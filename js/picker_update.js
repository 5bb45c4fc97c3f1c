/**
 * What an event makes of a point picker's state. Nothing is changed, drawn or told here.
 *
 * @typedef {import("./picker_state.js").Mark} Mark
 * @typedef {import("./picker_state.js").PickerEvent} PickerEvent
 * @typedef {import("./picker_state.js").Point} Point
 * @typedef {import("./picker_state.js").Size} Size
 * @typedef {import("./picker_state.js").State} State
 * @typedef {import("./picker_state.js").Step} Step
 */

import { cleared, edited, swapped } from "./picker_edits.js";
import { letGo, pressKey } from "./picker_keyboard.js";
import { move, press, release, removeUnder, withoutDrag } from "./picker_pointer.js";
import { isEditable, quietly, unfinished, withMarkAt } from "./picker_state.js";
import { pixelsToNormalised } from "./point_geometry.js";
import { parsePoints } from "./point_value.js";

/**
 * @param {State} state
 * @param {PickerEvent} event
 * @returns {Step} with the same state, not one like it, where the event means nothing
 */
export function update(state, event) {
  switch (event.type) {
    case "press":
      return press(state, event.pointer, event.shiftKey);
    case "move":
      return move(state, event.pointer, event.isPressed);
    case "release":
      return release(state, event.pointer);
    case "cancel":
      return quietly(withoutDrag(state));
    case "remove":
      return removeUnder(state, event.pointer);
    case "key":
      return pressKey(state, event);
    case "letGo":
      return letGo(state);
    case "enter":
      return enter(state, event.end, event.pixels);
    case "swap":
      return swapped(state);
    case "clear":
      return cleared(state);
    case "pin":
      return quietly(isEditable(state) ? { ...state, isPinning: !state.isPinning } : state);
    case "text":
      return quietly(event.text === state.text ? state : read({ ...state, text: event.text }));
    case "image":
      return quietly(withImage(state, event.size));
    case "lock":
      return quietly(event.reason === state.readOnlyReason ? state : read({ ...state, readOnlyReason: event.reason }));
  }
}

/**
 * @param {State} state
 * @param {Mark["end"]} end of the selected pair, or the selected pin
 * @param {Point} pixels where it is to be
 * @returns {Step}
 */
function enter(state, end, pixels) {
  if (!state.selected || !isEditable(state)) return quietly(state);
  const position = pixelsToNormalised(pixels, state.imageSize);
  return edited(state, withMarkAt(state, { index: state.selected.index, end }, position));
}

/**
 * The state with what its text says. A gesture ends, and a pin is no longer waited for.
 * @param {State} state
 * @returns {State}
 */
function read(state) {
  const { unfinished: handle, ...reading } = parsePoints(state.text, state.imageSize);
  const { index = 0, end } = state.selected ?? {};
  const isThere = index < (end === "pin" ? reading.pins : reading.pairs).length;
  const selected = isThere ? state.selected : null;
  return { ...state, ...reading, selected, gesture: handle && unfinished(handle), isPinning: false };
}

/**
 * The state over another picture, or none. Only points in pixels mean other places on it; a gesture goes on over all
 * others.
 * @param {State} state
 * @param {Size | null} size
 * @returns {State}
 */
function withImage(state, size) {
  const next = { ...state, imageSize: size };
  const isSameSize = String(size) === String(state.imageSize);
  if (!isSameSize && parsePoints(state.text, null).needsImage) return read(next);
  return size ? next : withoutDrag(next);
}
