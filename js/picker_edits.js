/**
 * What edits make of a state. Every change is told at once; undo takes back a whole edit.
 *
 * @typedef {import("./picker_state.js").Pair} Pair
 * @typedef {import("./picker_state.js").State} State
 * @typedef {import("./picker_state.js").Step} Step
 */

import { formatPoints } from "./point_value.js";

/**
 * A part of an edit.
 * @param {State} state
 * @param {Pair[]} pairs
 * @returns {Step}
 */
export function changed(state, pairs) {
  const text = formatPoints(pairs, state.imageSize);
  return { state: { ...state, pairs, text }, effects: [{ type: "change", text }] };
}

/**
 * A whole edit.
 * @param {State} state
 * @param {Pair[]} pairs
 * @returns {Step}
 */
export function edited(state, pairs) {
  const { state: next, effects } = changed(state, pairs);
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
  return edited({ ...state, gesture: null, selected: { index: pairs.length, end: "target" } }, [...pairs, pair]);
}

/**
 * One pair less; nothing is selected.
 * @param {State} state
 * @param {number} index
 * @returns {Step}
 */
export function removed(state, index) {
  const left = state.pairs.filter((_, at) => at !== index);
  return edited({ ...state, gesture: null, selected: null }, left);
}

/**
 * No pairs, whatever the text says.
 * @param {State} state
 * @returns {Step}
 */
export function cleared(state) {
  return edited({ ...state, gesture: null, selected: null, problem: null, needsImage: false }, []);
}

/**
 * Handle and target exchanged: of the selected pair, or of all when none is selected.
 * @param {State} state
 * @returns {Step}
 */
export function swapped(state) {
  const only = state.selected?.index;
  const isMeant = (/** @type {number} */ index) => only === undefined || only === index;
  return edited(
    state,
    state.pairs.map((pair, index) => (isMeant(index) ? { handle: pair.target, target: pair.handle } : pair)),
  );
}
