/** The coordinates of one pair as numbers that can be edited, in pixels of the image. */

import { colourOf } from "./point_drawing.js";
import { normalisedToPixels } from "./point_geometry.js";

/**
 * @typedef {import("./point_geometry.js").End} End
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_geometry.js").Size} Size
 * @typedef {import("./point_value.js").Pair} Pair
 * @typedef {{pair: Pair, index: number, imageSize: Size}} Shown
 */

const DECIMALS = 100;

export class PairNumbers {
  /**
   * @param {{stage: HTMLElement, numbers: HTMLElement, chip: HTMLElement, inputs: HTMLInputElement[]}} parts
   * @param {(end: End, pixels: Point) => void} onEnter a number was entered
   */
  constructor({ stage, numbers, chip, inputs }, onEnter) {
    this._stage = stage;
    this._numbers = numbers;
    this._chip = chip;
    this._inputs = inputs;
    this._onEnter = onEnter;
    /** @type {Shown | null} */
    this._shown = null;
    for (const input of inputs) {
      input.addEventListener("change", () => this._enter(input));
      input.addEventListener("keydown", (event) => this._key(event, input));
    }
  }

  /**
   * @param {Pair} pair
   * @param {number} index the pair's place in the list
   * @param {Size} imageSize
   */
  show(pair, index, imageSize) {
    this._shown = { pair, index, imageSize };
    this._numbers.hidden = false;
    this._write(this._shown);
  }

  hide() {
    this._shown = null;
    this._numbers.hidden = true;
  }

  /** @param {Shown} shown */
  _write(shown) {
    const { index, imageSize } = shown;
    this._chip.textContent = String(index + 1);
    this._chip.style.background = colourOf(index);
    for (const input of this._inputs) {
      const { end, axis } = coordinateOf(input);
      input.max = String(imageSize[axis]);
      input.value = String(rounded(pixelsOf(shown, end)[axis]));
    }
  }

  /**
   * Only the coordinate that was entered changes: the others are shown less exactly than they are.
   * @param {HTMLInputElement} input
   */
  _enter(input) {
    if (!this._shown) return;
    const { end, axis } = coordinateOf(input);
    const pixels = pixelsOf(this._shown, end);
    const isNumber = input.value !== ""; // the browser gives no text for what is none
    if (isNumber && Number(input.value) !== rounded(pixels[axis])) {
      pixels[axis] = Number(input.value);
      this._onEnter(end, pixels);
    } else {
      this._write(this._shown);
    }
  }

  /**
   * Enter and Escape are for the number; ComfyUI leaves other keys to a text field by itself.
   * @param {KeyboardEvent} event
   * @param {HTMLInputElement} input
   */
  _key(event, input) {
    if (event.key !== "Escape" && event.key !== "Enter") return;
    event.stopPropagation();
    if (event.key === "Enter") this._enter(input);
    else if (this._shown) this._write(this._shown);
    this._stage.focus({ preventScroll: true });
  }
}

/**
 * Which coordinate an input holds.
 * @param {HTMLInputElement} input
 */
function coordinateOf({ dataset }) {
  return { end: /** @type {End} */ (dataset.end), axis: Number(dataset.axis) };
}

/**
 * @param {Shown} shown
 * @param {End} end
 */
function pixelsOf({ pair, imageSize }, end) {
  return normalisedToPixels(pair[end], imageSize);
}

/** @param {number} coordinate */
function rounded(coordinate) {
  return Math.round(coordinate * DECIMALS) / DECIMALS;
}
