/** The coordinates of one pair as numbers that can be edited, in pixels of the image. */

import { colourOf } from "./point_drawing.js";
import { normalisedToPixels } from "./point_geometry.js";

const DECIMALS = 100;

export class PairNumbers {
  /**
   * @param {{stage: HTMLElement, numbers: HTMLElement, chip: HTMLElement, inputs: HTMLInputElement[]}} parts
   * @param {(end: "handle" | "target", pixels: [number, number]) => void} onEnter a number was entered
   */
  constructor({ stage, numbers, chip, inputs }, onEnter) {
    this._stage = stage;
    this._numbers = numbers;
    this._chip = chip;
    this._inputs = inputs;
    this._onEnter = onEnter;
    this._shown = null;
    for (const input of inputs) {
      input.addEventListener("change", () => this._enter(input));
      input.addEventListener("keydown", (event) => this._key(event, input));
    }
  }

  /**
   * @param {import("./point_value.js").Pair | null} pair null hides the numbers
   * @param {number} index the pair's place in the list
   * @param {[number, number]} imageSize
   */
  show(pair, index, imageSize) {
    this._shown = pair && { pair, index, imageSize };
    this._numbers.hidden = pair === null;
    if (pair) this._write();
  }

  _write() {
    const { index, imageSize } = this._shown;
    this._chip.textContent = index + 1;
    this._chip.style.background = colourOf(index);
    for (const input of this._inputs) {
      const axis = Number(input.dataset.axis);
      input.max = imageSize[axis];
      input.value = rounded(this._pixels(input)[axis]);
    }
  }

  _pixels({ dataset }) {
    const { pair, imageSize } = this._shown;
    return normalisedToPixels(pair[dataset.end], imageSize);
  }

  /** Only the coordinate that was entered changes: the others are shown less exactly than they are. */
  _enter(input) {
    if (!this._shown) return;
    const { end, axis } = input.dataset;
    const pixels = this._pixels(input);
    const isNumber = input.value !== ""; // the browser gives no text for what is none
    if (isNumber && Number(input.value) !== rounded(pixels[axis])) {
      pixels[axis] = Number(input.value);
      this._onEnter(end, pixels);
    } else {
      this._write();
    }
  }

  /** Enter and Escape are for the number; ComfyUI leaves other keys to a text field by itself. */
  _key(event, input) {
    if (event.key !== "Escape" && event.key !== "Enter") return;
    event.stopPropagation();
    if (event.key === "Enter") this._enter(input);
    else if (this._shown) this._write();
    this._stage.focus({ preventScroll: true });
  }
}

function rounded(coordinate) {
  return Math.round(coordinate * DECIMALS) / DECIMALS;
}
