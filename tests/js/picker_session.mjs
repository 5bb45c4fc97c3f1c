/** A point picker's state over a sequence of events, on an image of 300 × 200 that fills its box. */

import { EMPTY } from "../../js/picker_state.js";
import { update } from "../../js/picker_update.js";
import { normalisedToBox } from "../../js/point_geometry.js";

export const SIZE = [300, 200];
export const A = [
  [0.2, 0.3],
  [0.6, 0.4],
];
export const B = [
  [0.8, 0.7],
  [0.5, 0.9],
];
export const C = [
  [0.25, 0.8],
  [0.35, 0.6],
];
const FRAME = { x: 50, y: 0, width: 300, height: 200 };

/** The text of pairs, as it is written. */
export function textOf(...pairs) {
  return JSON.stringify({ v: 1, size: SIZE, points: pairs.map(([handle, target]) => ({ handle, target })) });
}

/** The text of pairs and pins, as it is written. */
export function pinnedTextOf(pairs, pins) {
  return JSON.stringify({ ...JSON.parse(textOf(...pairs)), v: 2, pins });
}

export class Session {
  /** @param {{text?: string, size?: [number, number] | null, zoom?: number}} options */
  constructor({ text = "", size = SIZE, zoom = 1 } = {}) {
    this.state = EMPTY;
    this.zoom = zoom;
    this.effects = [];
    this.send({ type: "image", size });
    this.send({ type: "text", text });
  }

  /** Send an event, and return the kinds of effects it has. */
  send(event) {
    const before = deepFrozen(this.state);
    const { state, effects } = update(before, event);
    this.state = state;
    this.effects.push(...effects);
    return effects.map(({ type }) => type);
  }

  /** The pointer over a point of the image, some screen pixels aside. */
  pointer(place, [right, down] = [0, 0]) {
    const [x, y] = normalisedToBox(place, FRAME);
    const box = [x + right / this.zoom, y + down / this.zoom];
    const client = box.map((coordinate) => coordinate * this.zoom);
    return { client, box, frame: FRAME, unit: 1 / this.zoom, zoom: this.zoom };
  }

  press(place, aside, shiftKey = false) {
    return this.send({ type: "press", pointer: this.pointer(place, aside), shiftKey });
  }

  move(place, aside, isPressed = true) {
    return this.send({ type: "move", pointer: this.pointer(place, aside), isPressed });
  }

  release(place, aside) {
    return this.send({ type: "release", pointer: this.pointer(place, aside) });
  }

  remove(place) {
    return this.send({ type: "remove", pointer: this.pointer(place) });
  }

  click(place) {
    return [...this.press(place), ...this.release(place)];
  }

  /** A click with Shift. */
  pin(place) {
    return [...this.press(place, [0, 0], true), ...this.release(place)];
  }

  drag(from, to) {
    return [...this.press(from), ...this.move(to), ...this.release(to)];
  }

  /** Two clicks for each pair. */
  place(...pairs) {
    for (const pair of pairs) pair.map((end) => this.click(end));
  }

  key(key, shiftKey = false) {
    return this.send({ type: "key", key, shiftKey });
  }

  /** The pairs as lists, to four decimals. */
  get pairs() {
    return this.state.pairs.map(({ handle, target }) => [handle, target].map(rounded));
  }

  /** The pins, to four decimals. */
  get pins() {
    return this.state.pins.map(rounded);
  }

  /** The texts that were told, in order. */
  get texts() {
    return this.effects.filter(({ type }) => type === "change").map(({ text }) => text);
  }
}

export function rounded(point) {
  return point.map((coordinate) => Math.round(coordinate * 1e4) / 1e4);
}

function deepFrozen(value) {
  if (value === null || typeof value !== "object" || Object.isFrozen(value)) return value;
  for (const part of Object.values(value)) deepFrozen(part);
  return Object.freeze(value);
}
