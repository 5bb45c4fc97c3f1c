/**
 * What edits make of a state. Every change is told at once; undo takes back a whole edit.
 *
 * @typedef {import("./picker_state.js").Mark} Mark
 * @typedef {import("./picker_state.js").Pair} Pair
 * @typedef {import("./picker_state.js").Point} Point
 * @typedef {import("./picker_state.js").Points} Points
 * @typedef {import("./picker_state.js").State} State
 * @typedef {import("./picker_state.js").Step} Step
 */

import { formatPoints } from "./point_value.js";

/**
 * A part of an edit.
 * @param {State} state
 * @param {Partial<Points>} points those that become others
 * @returns {Step}
 */
export function changed({ pairs, pins, ...state }, points) {
  const all = { pairs, pins, ...points };
  const text = formatPoints(all, state.imageSize);
  return { state: { ...state, ...all, text }, effects: [{ type: "change", text }] };
}

/**
 * A whole edit.
 * @param {State} state
 * @param {Partial<Points>} points
 * @returns {Step}
 */
export function edited(state, points) {
  const { state: next, effects } = changed(state, points);
  return { state: next, effects: [...effects, { type: "endEdit" }] };
}

/**
 * One more pair; its target is selected.
 * @param {State} state
 * @param {Pair} pair
 * @returns {Step}
 */
export function added(state, pair) {
  const { pairs } = state;
  const selected = /** @type {Mark} */ ({ index: pairs.length, end: "target" });
  return edited({ ...state, gesture: null, selected }, { pairs: [...pairs, pair] });
}

/**
 * One more pin; it is selected, unless a handle waits for its target.
 * @param {State} state
 * @param {Point} place
 * @returns {Step}
 */
export function pinned(state, place) {
  const { pins, gesture } = state;
  const selected = gesture ? null : /** @type {Mark} */ ({ index: pins.length, end: "pin" });
  return edited({ ...state, selected }, { pins: [...pins, place] });
}

/**
 * One pair less, or one pin; nothing is selected.
 * @param {State} state
 * @param {Mark} mark the pin, or an end of the pair
 * @returns {Step}
 */
export function removed(state, { index, end }) {
  const { pairs, pins } = state;
  const isLeft = (/** @type {unknown} */ _, /** @type {number} */ at) => at !== index;
  const left = end === "pin" ? { pins: pins.filter(isLeft) } : { pairs: pairs.filter(isLeft) };
  return edited({ ...state, gesture: null, selected: null }, left);
}

/**
 * No points, whatever the text says.
 * @param {State} state
 * @returns {Step}
 */
export function cleared(state) {
  return edited({ ...state, gesture: null, selected: null, problem: null, needsImage: false }, { pairs: [], pins: [] });
}

/**
 * Handle and target exchanged: of the selected pair, or of all when none is selected.
 * @param {State} state
 * @returns {Step}
 */
export function swapped(state) {
  const { pairs, selected } = state;
  const only = selected?.end === "pin" ? undefined : selected?.index;
  const isMeant = (/** @type {number} */ index) => only === undefined || only === index;
  const turned = (/** @type {Pair} */ { handle, target }) => ({ handle: target, target: handle });
  return edited(state, { pairs: pairs.map((pair, index) => (isMeant(index) ? turned(pair) : pair)) });
}
