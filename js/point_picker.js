/**
 * An editor for pairs of points and pins on an image: a DOM element that takes a text and an image, and reports edits. It tells
 * the DOM's events to picker_update.js, does what that answers, and draws the state. It knows nothing of ComfyUI.
 */

import { PairNumbers } from "./pair_numbers.js";
import { arrowsOf } from "./picker_arrows.js";
import { buildPickerElements } from "./picker_elements.js";
import { isOverImage, placeUnder } from "./picker_pointer.js";
import { EMPTY, isDragging, isEditable, pulledPoints, shownPoints } from "./picker_state.js";
import { update } from "./picker_update.js";
import { hintOf, messageOf } from "./picker_words.js";
import { PictureView } from "./picture_view.js";
import { clientToBox, letterbox, normalisedToPixels } from "./point_geometry.js";
import { followPreview, isPreviewOn, togglePreview, unfollowPreview } from "./preview_choice.js";
import { WarpPreview } from "./warp_preview.js";

/**
 * @typedef {import("./picker_state.js").Effect} Effect
 * @typedef {import("./picker_state.js").PickerEvent} PickerEvent
 * @typedef {import("./picker_state.js").Pointer} Pointer
 * @typedef {import("./picker_state.js").Size} Size
 * @typedef {import("./picker_state.js").State} State
 * @typedef {import("./picture_view.js").Picture} Picture
 */

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
    /** @type {State} */
    this._state = EMPTY;
    this._placeholder = "";
    this._maskNote = "";
    this._unit = 1;
    /** @type {number | undefined} */
    this._radius = undefined;

    this._parts = buildPickerElements();
    this._preview = new WarpPreview(this._parts);
    this._picture = new PictureView(this._parts.image, this._parts.mask, () => {
      this._preview.forget();
      this._send({ type: "image", size: this._picture.size });
    });
    this._numbers = new PairNumbers(this._parts, (end, pixels) => this._send({ type: "enter", end, pixels }));
    /** The editor; it fills whatever it is put in. */
    this.element = this._parts.root;
    this._listen();
    this._redraw = () => this._draw();
    this._resizes = new ResizeObserver(this._redraw);
    this._draw();
  }

  /** Follow the element's size and the choice of a preview, from when it is in view until `disconnect`. */
  connect() {
    this._resizes.observe(this._parts.stage);
    followPreview(this._redraw);
  }

  /** Hold on to nothing while out of view; the element is the caller's to remove. */
  disconnect() {
    this._resizes.disconnect();
    unfollowPreview(this._redraw);
    this._send({ type: "cancel" });
    this._preview.forget();
  }

  /**
   * Show the points of a text. Showing the same text again changes nothing.
   * @param {string} text
   */
  setValue(text) {
    this._send({ type: "text", text });
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
    this._send({ type: "lock", reason });
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

  /**
   * Tell how far around a pull the picture moves where no mask bounds it.
   * @param {number | undefined} radius a share of its shorter side; undefined is the usual
   */
  setRadius(radius) {
    this._radius = radius;
  }

  // Events and effects

  /**
   * @param {PickerEvent} event
   * @param {Event} [source] the DOM's event that it stands for
   */
  _send(event, source) {
    const { state, effects } = update(this._state, event);
    const isChanged = state !== this._state;
    this._state = state;
    if (isChanged) this._draw();
    for (const effect of effects) this._perform(effect, source);
  }

  /**
   * @param {Effect} effect
   * @param {Event} [source]
   */
  _perform(effect, source) {
    const { drawing } = this._parts;
    if (effect.type === "change") this._onChange(effect.text);
    else if (effect.type === "endEdit") this._onEditEnd();
    else if (effect.type === "hover") drawing.classList.toggle("on-mark", effect.isOnMark);
    else if (effect.type === "capture" && source instanceof PointerEvent) drawing.setPointerCapture(source.pointerId);
    else if (effect.type === "consume") {
      source?.preventDefault();
      source?.stopPropagation();
    }
  }

  _listen() {
    const { stage, drawing, clear, swap, pin, previewSwitch } = this._parts;
    drawing.addEventListener("pointerdown", (event) => this._press(event));
    drawing.addEventListener("pointermove", (event) => this._move(event));
    drawing.addEventListener("pointerup", (event) => {
      if (event.button === 0 && event.isPrimary) this._sendPointer("release", event);
    });
    drawing.addEventListener("pointercancel", () => this._send({ type: "cancel" }));
    drawing.addEventListener("lostpointercapture", () => this._send({ type: "cancel" })); // after every release too
    drawing.addEventListener("pointerleave", () => this._showPlace(null));
    drawing.addEventListener("contextmenu", (event) => this._sendPointer("remove", event));
    stage.addEventListener("keydown", (event) => this._key(event));
    stage.addEventListener("keyup", () => this._send({ type: "letGo" }));
    stage.addEventListener("blur", () => this._send({ type: "letGo" }));
    clear.addEventListener("click", () => this._send({ type: "clear" }));
    swap.addEventListener("click", () => this._send({ type: "swap" }));
    previewSwitch.addEventListener("click", togglePreview);
    pin.addEventListener("click", () => {
      this._send({ type: "pin" });
      stage.focus({ preventScroll: true }); // there Enter sets it and Escape gives it up
    });
  }

  /** @param {PointerEvent} event */
  _press(event) {
    const isClick = event.button === 0 && !event.ctrlKey; // with Control it is a Mac's right click
    if (!isClick || !event.isPrimary || !isEditable(this._state)) return;
    this._parts.stage.focus({ preventScroll: true }); // first, for it enters a number that is being typed
    const pointer = this._pointerOf(event);
    if (pointer) this._send({ type: "press", pointer, shiftKey: event.shiftKey }, event);
  }

  /** @param {PointerEvent} event */
  _move(event) {
    if (!event.isPrimary) return;
    const pointer = this._pointerOf(event);
    this._showPlace(pointer);
    if (pointer) this._send({ type: "move", pointer, isPressed: (event.buttons & 1) !== 0 });
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    this._send({ type: "key", key: event.key, shiftKey: event.shiftKey }, event);
  }

  /**
   * @param {"release" | "remove"} type
   * @param {MouseEvent} event
   */
  _sendPointer(type, event) {
    const pointer = this._pointerOf(event);
    if (pointer) this._send({ type, pointer }, event);
  }

  /**
   * @param {MouseEvent} event
   * @returns {Pointer | null} null where no image is shown
   */
  _pointerOf({ clientX, clientY }) {
    const frame = this._frame;
    if (!frame) return null;
    const rect = this._parts.drawing.getBoundingClientRect();
    const box = clientToBox([clientX, clientY], rect, this._boxSize);
    return { client: [clientX, clientY], box, frame, unit: this._unit, zoom: rect.width / this._boxSize[0] };
  }

  /** @returns {Size} */
  get _boxSize() {
    return [this._parts.drawing.clientWidth, this._parts.drawing.clientHeight];
  }

  get _frame() {
    return this._state.imageSize && letterbox(this._boxSize, this._state.imageSize);
  }

  // The view

  _draw() {
    const { root, drawing, stage, clear, swap, pin, previewSwitch } = this._parts;
    const { readOnlyReason, text, gesture, pairs, isPinning } = this._state;
    root.classList.toggle("read-only", Boolean(readOnlyReason));
    stage.setAttribute("aria-disabled", String(!isEditable(this._state)));
    const frame = this._boxSize.includes(0) ? null : this._frame;
    drawing.replaceChildren(...(frame ? arrowsOf(this._state, frame, this._unit) : []));
    this._showPull();
    this._showMessage();
    this._showNumbers();
    clear.disabled = Boolean(readOnlyReason) || (text === "" && !gesture);
    swap.disabled = !isEditable(this._state) || pairs.length === 0;
    pin.disabled = !isEditable(this._state);
    pin.ariaPressed = String(isPinning);
    previewSwitch.ariaPressed = String(isPreviewOn());
  }

  _showPull() {
    const points = isPreviewOn() ? pulledPoints(this._state) : null;
    const isBounded = this._picture.isMaskShown && this._maskNote === ""; // else the mask has no effect
    this._preview.show(points && { points, isBounded, radius: this._radius });
  }

  _showMessage() {
    const { message } = this._parts;
    const text = messageOf(this._state, this._placeholder);
    message.textContent = text;
    message.hidden = text === "";
    message.classList.toggle("over-picture", this._state.imageSize !== null);
  }

  _showNumbers() {
    const { hint } = this._parts;
    const { selected } = this._state;
    if (selected && isEditable(this._state)) {
      this._numbers.show(shownPoints(this._state), selected, this._state.imageSize);
      hint.hidden = true;
    } else {
      this._numbers.hide();
      hint.hidden = false;
    }
    hint.textContent = hint.title = hintOf(this._state, this._picture.isMaskShown ? this._maskNote : "");
  }

  /** @param {Pointer | null} pointer */
  _showPlace(pointer) {
    const { imageSize } = this._state;
    const isShown = pointer !== null && imageSize !== null && (isDragging(this._state) || isOverImage(pointer));
    const pixels = isShown ? normalisedToPixels(placeUnder(pointer), imageSize) : null;
    this._parts.place.textContent = pixels ? `x ${pixels[0].toFixed(1)}  y ${pixels[1].toFixed(1)}` : "";
  }
}
