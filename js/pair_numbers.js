/** The coordinates of one pair, or of one pin, as numbers that can be edited, in pixels of the image. */

import { colourOf, PIN_COLOUR } from "./point_drawing.js";
import { normalisedToPixels, placeOf } from "./point_geometry.js";

/**
 * @typedef {import("./point_geometry.js").Mark} Mark
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_geometry.js").Size} Size
 * @typedef {import("./point_value.js").Points} Points
 * @typedef {{points: Points, mark: Mark, imageSize: Size}} Shown
 */

const DECIMALS = 100;

export class PairNumbers {
  /**
   * @param {{stage: HTMLElement, numbers: HTMLElement, chip: HTMLElement, ofPair: HTMLElement[],
   *   ofPin: HTMLElement, inputs: HTMLInputElement[]}} parts
   * @param {(end: Mark["end"], pixels: Point) => void} onEnter a number was entered
   */
  constructor({ stage, numbers, chip, ofPair, ofPin, inputs }, onEnter) {
    this._stage = stage;
    this._numbers = numbers;
    this._chip = chip;
    this._ofPair = ofPair;
    this._ofPin = ofPin;
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
   * @param {Points} points
   * @param {Mark} mark the pin, or an end of the pair
   * @param {Size} imageSize
   */
  show(points, mark, imageSize) {
    this._shown = { points, mark, imageSize };
    const isPin = mark.end === "pin";
    for (const group of this._ofPair) group.hidden = isPin;
    this._ofPin.hidden = !isPin;
    this._chip.textContent = isPin ? "Pin" : String(mark.index + 1);
    this._chip.style.background = isPin ? PIN_COLOUR : colourOf(mark.index);
    this._numbers.hidden = false;
    this._write(this._shown);
  }

  hide() {
    this._shown = null;
    this._numbers.hidden = true;
  }

  /** @param {Shown} shown */
  _write(shown) {
    const isShownPin = shown.mark.end === "pin";
    for (const input of this._inputs) {
      const { end, axis } = coordinateOf(input);
      if ((end === "pin") !== isShownPin) continue;
      input.max = String(shown.imageSize[axis]);
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
  return { end: /** @type {Mark["end"]} */ (dataset.end), axis: Number(dataset.axis) };
}

/**
 * @param {Shown} shown
 * @param {Mark["end"]} end
 */
function pixelsOf({ points, mark, imageSize }, end) {
  return normalisedToPixels(placeOf(points, { index: mark.index, end }), imageSize);
}

/** @param {number} coordinate */
function rounded(coordinate) {
  return Math.round(coordinate * DECIMALS) / DECIMALS;
}
