/**
 * An editor for pairs of points on an image: a DOM element that takes a text and an image, and reports edits. It knows
 * nothing of ComfyUI.
 */

import { PairNumbers } from "./pair_numbers.js";
import { buildPickerElements } from "./picker_elements.js";
import { PictureView } from "./picture_view.js";
import { arrow, unfinishedArrow } from "./point_drawing.js";
import {
  boxToNormalised,
  clampToImage,
  clientToBox,
  distance,
  endAt,
  isOnImage,
  letterbox,
  normalisedToBox,
  normalisedToPixels,
  pixelsToNormalised,
} from "./point_geometry.js";
import { formatPoints, parsePoints } from "./point_value.js";

/**
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_value.js").Pair} Pair
 * @typedef {import("./picture_view.js").Picture} Picture
 */

const GRAB_RADIUS = 13; // screen pixels
const DRAG_THRESHOLD = 4; // screen pixels; less is a click
const EDGE_TOLERANCE = 6; // screen pixels beside the image that still mean its edge
const NEW_PAIR_LENGTH = 0.1; // of the image's width, when the keyboard makes a pair
const LARGE_STEP = 10; // image pixels, with Shift
const DELETE_KEYS = ["Delete", "Backspace"];
const ARROW_KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const CHOICE_KEYS = { "[": -1, "]": 1, PageUp: -1, PageDown: 1 }; // not every keyboard has brackets at hand
const MIN_UNIT = 0.5;
const MAX_UNIT = 2.5;

export class PointPicker {
  /**
   * @param {object} callbacks
   * @param {(text: string) => void} callbacks.onChange the points have changed
   * @param {() => void} callbacks.onEditEnd what changed since the last call is one edit, for undo
   */
  constructor({ onChange, onEditEnd }) {
    this._onChange = onChange;
    this._onEditEnd = onEditEnd;
    this._text = "";
    this._pairs = [];
    this._problem = null;
    this._needsImage = false;
    this._readSize = null;
    this._placeholder = "";
    this._maskNote = "";
    this._readOnlyReason = null;
    this._unit = 1;
    this._selected = null;
    this._gesture = null;
    this._nudged = false;

    this._parts = buildPickerElements();
    this._picture = new PictureView(this._parts.image, this._parts.mask, () => this._pictureShown());
    this._numbers = new PairNumbers(this._parts, (end, pixels) => this._enter(end, pixels));
    /** The editor; it fills whatever it is put in. */
    this.element = this._parts.root;
    this._listen();
    this._resizes = new ResizeObserver(() => this._draw());
    this._draw();
  }

  /** Follow the element's size, from when it is in view until `disconnect`. */
  connect() {
    this._resizes.observe(this._parts.stage);
  }

  /** Hold on to nothing while out of view; the element is the caller's to remove. */
  disconnect() {
    this._resizes.disconnect();
    this._cancelDrag();
  }

  /**
   * Show the points of a text. Showing the same text again changes nothing.
   * @param {string} text
   */
  setValue(text) {
    if (text === this._text) return;
    this._text = text;
    this._gesture = null;
    this._read();
  }

  /**
   * Show an image, or in its absence a sentence. Points are kept either way.
   * @param {Picture | null} picture
   * @param {string} placeholder what to do to see an image
   */
  setPicture(picture, placeholder) {
    this._picture.show(picture);
    if (placeholder === this._placeholder) return;
    this._placeholder = placeholder;
    this._draw();
  }

  /**
   * Say something about the mask while one is shown.
   * @param {string} note
   */
  setMaskNote(note) {
    if (note === this._maskNote) return;
    this._maskNote = note;
    this._draw();
  }

  /**
   * Take no edits, and say why; null takes them again.
   * @param {string | null} reason
   */
  setReadOnly(reason) {
    if (reason === this._readOnlyReason) return;
    this._readOnlyReason = reason;
    this._read();
  }

  /**
   * Tell at which scale the editor is shown, so that marks keep their size on the screen.
   * @param {number} scale
   */
  setZoom(scale) {
    const unit = Math.min(Math.max(1 / scale, MIN_UNIT), MAX_UNIT);
    if (Math.abs(unit - this._unit) < 0.001) return;
    this._unit = unit;
    this._draw();
  }

  // The value

  _read() {
    const { pairs, unfinished, problem, needsImage } = parsePoints(this._text, this._imageSize);
    this._pairs = pairs;
    this._problem = problem;
    this._needsImage = needsImage;
    this._readSize = this._imageSize;
    this._gesture = unfinished && unfinishedPair(unfinished);
    if (this._selected && this._selected.index >= pairs.length) this._selected = null;
    this._draw();
  }

  /** Another picture, or none. Only points in pixels mean other places on it; a gesture goes on over all others. */
  _pictureShown() {
    const isSameSize = String(this._imageSize) === String(this._readSize);
    if (!isSameSize && parsePoints(this._text, null).needsImage) {
      this._read();
      return;
    }
    if (!this._imageSize) this._cancelDrag();
    this._draw();
  }

  get _imageSize() {
    return this._picture.size;
  }

  get _isEditable() {
    return !this._readOnlyReason && !this._problem && !this._needsImage && this._imageSize !== null;
  }

  _change(pairs) {
    this._pairs = pairs;
    this._text = formatPoints(pairs, this._imageSize);
    this._onChange(this._text);
    this._draw();
  }

  _edit(pairs) {
    this._change(pairs);
    this._onEditEnd();
  }

  _moved(index, end, position) {
    return this._pairs.map((pair, at) => (at === index ? { ...pair, [end]: clampToImage(position) } : pair));
  }

  _add(pair) {
    this._gesture = null;
    this._selected = { index: this._pairs.length, end: "target" };
    this._edit([...this._pairs, pair]);
  }

  _remove(index) {
    this._gesture = null;
    this._selected = null;
    this._edit(this._pairs.filter((_, at) => at !== index));
  }

  _clear() {
    this._gesture = null;
    this._selected = null;
    this._problem = null;
    this._needsImage = false;
    this._edit([]);
  }

  _swap() {
    const only = this._selected?.index;
    this._edit(
      this._pairs.map((pair, index) =>
        only === undefined || only === index ? { handle: pair.target, target: pair.handle } : pair,
      ),
    );
  }

  // Places

  get _boxSize() {
    return [this._parts.drawing.clientWidth, this._parts.drawing.clientHeight];
  }

  get _frame() {
    return letterbox(this._boxSize, this._imageSize);
  }

  _boxPoint(event) {
    const rect = this._parts.drawing.getBoundingClientRect();
    return clientToBox([event.clientX, event.clientY], rect, this._boxSize);
  }

  _normalised(event) {
    return clampToImage(boxToNormalised(this._boxPoint(event), this._frame));
  }

  _endAt(event) {
    return endAt(this._boxPoint(event), this._pairs, this._frame, GRAB_RADIUS * this._unit);
  }

  /** A double click is no pair: the node refuses one whose handle is its target. */
  _areApart(...ends) {
    const [handle, target] = ends.map((end) => normalisedToBox(end, this._frame));
    const zoom = this._parts.drawing.getBoundingClientRect().width / this._boxSize[0];
    return distance(handle, target) * zoom >= DRAG_THRESHOLD;
  }

  _isOnImage(event) {
    return isOnImage(this._boxPoint(event), this._frame, EDGE_TOLERANCE * this._unit);
  }

  // The pointer

  _listen() {
    const { stage, drawing, clear, swap } = this._parts;
    drawing.addEventListener("pointerdown", (event) => this._press(event));
    drawing.addEventListener("pointermove", (event) => this._move(event));
    drawing.addEventListener("pointerup", (event) => this._release(event));
    drawing.addEventListener("pointercancel", () => this._cancelDrag());
    drawing.addEventListener("lostpointercapture", () => this._cancelDrag());
    drawing.addEventListener("pointerleave", () => this._showPlace(null));
    drawing.addEventListener("contextmenu", (event) => this._removeAt(event));
    stage.addEventListener("keydown", (event) => this._key(event));
    stage.addEventListener("keyup", () => this._endNudge());
    stage.addEventListener("blur", () => this._endNudge());
    clear.addEventListener("click", () => this._clear());
    swap.addEventListener("click", () => this._swap());
  }

  _press(event) {
    const isClick = event.button === 0 && !event.ctrlKey; // with Control it is a Mac's right click
    if (!isClick || !event.isPrimary || !this._isEditable) return;
    this._parts.stage.focus({ preventScroll: true });
    const start = [event.clientX, event.clientY];
    if (this._gesture?.kind === "unfinished") {
      if (!this._isOnImage(event)) return;
      this._startDrag(event, { kind: "place", handle: this._gesture.handle, isSecondPress: true, start });
      return;
    }
    const end = this._endAt(event);
    if (end) {
      this._selected = end;
      this._startDrag(event, { kind: "move", ...end, start });
    } else if (this._isOnImage(event)) {
      this._selected = null;
      this._startDrag(event, { kind: "place", handle: this._normalised(event), isSecondPress: false, start });
    } else {
      this._selected = null;
      this._draw();
    }
  }

  _startDrag(event, gesture) {
    this._parts.drawing.setPointerCapture(event.pointerId);
    const isUnderWay = gesture.kind === "place" && gesture.isSecondPress;
    this._gesture = { ...gesture, isUnderWay, position: isUnderWay ? this._normalised(event) : null };
    this._draw();
  }

  get _isDragging() {
    return this._gesture?.kind === "place" || this._gesture?.kind === "move";
  }

  _move(event) {
    if (!event.isPrimary) return;
    this._showPlace(event);
    if (!this._imageSize) return;
    if (this._isDragging && !(event.buttons & 1)) this._cancelDrag();
    const gesture = this._gesture;
    if (gesture?.kind === "unfinished") {
      gesture.towards = this._normalised(event);
      this._draw();
    } else if (gesture) {
      gesture.isUnderWay ||= distance(gesture.start, [event.clientX, event.clientY]) >= DRAG_THRESHOLD;
      if (!gesture.isUnderWay) return;
      gesture.position = this._normalised(event);
      this._draw();
    } else if (this._isEditable) {
      this._parts.drawing.classList.toggle("on-end", this._endAt(event) !== null);
    }
  }

  _release(event) {
    if (event.button !== 0 || !event.isPrimary || !this._isDragging) return;
    const { kind, isUnderWay, position, handle, index, end } = this._gesture;
    this._gesture = null;
    if (kind === "move" && isUnderWay) this._edit(this._moved(index, end, position));
    else if (kind === "place" && isUnderWay && this._areApart(handle, position)) {
      this._add({ handle, target: position });
    } else if (kind === "place") this._gesture = unfinishedPair(handle);
    this._draw();
  }

  /** Also called after every release, when there is no drag left to cancel. A handle from before the drag stays. */
  _cancelDrag() {
    if (!this._isDragging) return;
    const { isSecondPress, handle } = this._gesture;
    this._gesture = isSecondPress ? unfinishedPair(handle) : null;
    this._draw();
  }

  _removeAt(event) {
    if (!this._isEditable) return;
    const end = this._endAt(event);
    if (!end) return;
    event.preventDefault();
    event.stopPropagation();
    this._remove(end.index);
  }

  // The keyboard

  /**
   * Keys that mean nothing here go on to whoever holds the editor. Delete never does: whoever presses it once more than
   * there are points does not mean to delete the editor.
   */
  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isHandled = this._isEditable && this._handleKey(event);
    if (!isHandled && !DELETE_KEYS.includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  _handleKey({ key, shiftKey }) {
    if (key === "Escape") return this._stepBack();
    if (key === "Enter") return this._addInTheMiddle();
    if (key in CHOICE_KEYS) return this._selectNext(CHOICE_KEYS[key]);
    if (!this._selected) return false;
    if (DELETE_KEYS.includes(key)) {
      this._remove(this._selected.index);
      return true;
    }
    if (!(key in ARROW_KEYS)) return false;
    this._nudge(ARROW_KEYS[key], shiftKey ? LARGE_STEP : 1);
    return true;
  }

  _stepBack() {
    if (!this._gesture && !this._selected) return false;
    if (this._gesture) this._abandon();
    else this._selected = null;
    this._draw();
    return true;
  }

  /** A handle that is in the text is to leave the text too: the node refuses an odd number of points. */
  _abandon() {
    this._gesture = null;
    if (parsePoints(this._text, this._imageSize).unfinished) this._edit(this._pairs);
  }

  _addInTheMiddle() {
    const [x, y] = this._gesture?.handle ?? [0.5, 0.5];
    const length = x + NEW_PAIR_LENGTH <= 1 ? NEW_PAIR_LENGTH : -NEW_PAIR_LENGTH;
    this._add({ handle: [x, y], target: [x + length, y] });
    return true;
  }

  _selectNext(step) {
    const ends = this._pairs.flatMap((_, index) => [
      { index, end: "handle" },
      { index, end: "target" },
    ]);
    if (ends.length === 0) return false;
    const { index, end } = this._selected ?? {};
    const now = ends.findIndex((other) => other.index === index && other.end === end);
    const next = now < 0 && step < 0 ? ends.length - 1 : now + step; // with none selected, step in from either side
    this._selected = ends[(next + ends.length) % ends.length];
    this._draw();
    return true;
  }

  _nudge([dx, dy], pixels) {
    const { index, end } = this._selected;
    const [x, y] = normalisedToPixels(this._pairs[index][end], this._imageSize);
    this._nudged = true; // a held key repeats; the edit ends when it is let go
    this._change(this._moved(index, end, pixelsToNormalised([x + dx * pixels, y + dy * pixels], this._imageSize)));
  }

  _endNudge() {
    if (!this._nudged) return;
    this._nudged = false;
    this._onEditEnd();
  }

  // The numbers

  _enter(end, pixels) {
    if (!this._selected || !this._isEditable) return;
    this._edit(this._moved(this._selected.index, end, pixelsToNormalised(pixels, this._imageSize)));
  }

  // The view

  _draw() {
    const { root, drawing, stage } = this._parts;
    root.classList.toggle("read-only", Boolean(this._readOnlyReason));
    stage.setAttribute("aria-disabled", String(!this._isEditable));
    drawing.replaceChildren(...(this._imageSize ? this._arrows() : []));
    this._showMessage();
    this._showNumbers();
    this._parts.clear.disabled = Boolean(this._readOnlyReason) || (this._text === "" && !this._gesture);
    this._parts.swap.disabled = !this._isEditable || this._pairs.length === 0;
  }

  _arrows() {
    const [width, height] = this._boxSize;
    if (width === 0 || height === 0 || this._readOnlyReason) return [];
    const frame = this._frame;
    const gesture = this._gesture;
    const pairs =
      gesture?.kind === "move" && gesture.isUnderWay
        ? this._moved(gesture.index, gesture.end, gesture.position)
        : this._pairs;
    const arrows = pairs.map((pair, index) => {
      const selectedEnd = this._selected?.index === index ? this._selected.end : null;
      return arrow(pair, index, frame, this._unit, selectedEnd);
    });
    if (gesture && gesture.kind !== "move") {
      const towards = gesture.position ?? gesture.towards;
      arrows.push(unfinishedArrow(gesture.handle, towards, pairs.length, frame, this._unit));
    }
    return arrows;
  }

  _showMessage() {
    const { message } = this._parts;
    const text = this._message();
    message.textContent = text;
    message.hidden = text === "";
    message.classList.toggle("over-picture", this._imageSize !== null);
  }

  _message() {
    if (this._readOnlyReason) return this._readOnlyReason;
    if (this._problem) {
      return `These points cannot be shown: ${this._problem}. Their text is kept until you press Clear.`;
    }
    return this._imageSize ? "" : `${this._placeholder} ${this._kept()}`;
  }

  _kept() {
    if (this._needsImage) return "The points are kept.";
    const count = this._pairs.length;
    return count === 0 ? "" : `${count} ${count === 1 ? "pair" : "pairs"} of points kept.`;
  }

  _showNumbers() {
    const { hint } = this._parts;
    const pair = this._imageSize && this._selected && this._isEditable ? this._shownPair() : null;
    this._numbers.show(pair, this._selected?.index, this._imageSize);
    hint.hidden = pair !== null;
    hint.textContent = hint.title = this._hint();
  }

  _shownPair() {
    const { index } = this._selected;
    const gesture = this._gesture;
    const isMoving = gesture?.kind === "move" && gesture.isUnderWay;
    return (isMoving ? this._moved(gesture.index, gesture.end, gesture.position) : this._pairs)[index];
  }

  _hint() {
    if (!this._isEditable) return "";
    if (this._gesture) return "Now its target: click or drag. Esc cancels.";
    if (this._picture.isMaskShown && this._maskNote) return this._maskNote;
    if (this._pairs.length === 0) return "Click a handle, then its target. Or drag from one to the other.";
    return "Drag ends to move them. Right click removes a pair.";
  }

  _showPlace(event) {
    const isShown = event !== null && this._imageSize !== null && (this._isDragging || this._isOnImage(event));
    const pixels = isShown ? normalisedToPixels(this._normalised(event), this._imageSize) : null;
    this._parts.place.textContent = pixels ? `x ${pixels[0].toFixed(1)}  y ${pixels[1].toFixed(1)}` : "";
  }
}

function unfinishedPair(handle) {
  return { kind: "unfinished", handle, towards: null };
}
