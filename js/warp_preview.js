/**
 * Shows on a canvas over the image what a pull would make of it. It draws when it is told of a pull and at no other
 * time, once in a frame at most. Without a picture that may be read it shows nothing.
 *
 * @typedef {import("./mask_regions.js").Regions} Regions
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_value.js").Points} Points
 * @typedef {{points: Points, isBounded: boolean, radius?: number}} Pull points normalised; whether the mask bounds what
 *   moves; else how far around the pulls everything does, as a share of the shorter side
 * @typedef {{pixels: ImageData, warped: ImageData, regions: Regions | null}} Picture plain, as it was drawn
 *   last, and the regions of its mask once they are asked for
 */

import { maskedPixels } from "./mask_overlay.js";
import { pullsOf, regionsOf } from "./mask_regions.js";
import { normalisedToPixels } from "./point_geometry.js";
import { drawMoved, drawWarped } from "./warp_drawing.js";
import { fadingField } from "./warp_field.js";

const LONGEST_SIDE = 512; // of the preview; it is stretched over the picture

export class WarpPreview {
  /** @param {{preview: HTMLCanvasElement, image: HTMLImageElement, mask: HTMLCanvasElement}} parts */
  constructor({ preview, image, mask }) {
    this._canvas = preview;
    this._image = image;
    this._mask = mask;
    /** @type {Pull | null} */
    this._pull = null;
    /** @type {Picture | null} */
    this._picture = null;
    this._frame = 0;
  }

  /** @param {Pull | null} pull null shows the plain picture */
  show(pull) {
    this._pull = pull;
    if (pull === null) this._hide();
    else if (!this._frame) this._frame = requestAnimationFrame(() => this._draw());
  }

  /** Keep nothing of the picture: another one is shown now, or none. */
  forget() {
    this._picture = null;
    this._canvas.hidden = true;
  }

  _hide() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
    this._canvas.hidden = true;
  }

  _draw() {
    this._frame = 0;
    this._picture ??= pictureOf(this._image);
    if (!this._pull || !this._picture) return;
    const { pixels, warped } = this._picture;
    const points = pointsOn(pixels, this._pull.points);
    if (this._pull.isBounded) {
      this._picture.regions ??= regionsOf(maskedPixels(this._mask, pixels), pixels.width, pixels.height);
      drawMoved(warped, pixels, this._picture.regions, pullsOf(this._picture.regions, points));
    } else {
      drawWarped(warped, pixels, fadingField(points, [pixels.width, pixels.height], this._pull.radius));
    }
    if (this._canvas.width !== pixels.width) this._canvas.width = pixels.width;
    if (this._canvas.height !== pixels.height) this._canvas.height = pixels.height;
    this._canvas.getContext("2d")?.putImageData(warped, 0, 0);
    this._canvas.hidden = false;
  }
}

/**
 * @param {HTMLImageElement} image
 * @returns {Picture | null} null where it is not loaded or may not be read
 */
function pictureOf(image) {
  if (!image.complete || image.naturalWidth === 0) return null;
  const scale = Math.min(1, LONGEST_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  try {
    context?.drawImage(image, 0, 0, canvas.width, canvas.height);
    const pixels = context?.getImageData(0, 0, canvas.width, canvas.height);
    return pixels ? { pixels, warped: new ImageData(pixels.width, pixels.height), regions: null } : null;
  } catch {
    return null; // it comes from elsewhere, or is no image after all
  }
}

/**
 * @param {{width: number, height: number}} picture
 * @param {Points} points normalised
 * @returns {Points} in pixels
 */
function pointsOn({ width, height }, { pairs, pins }) {
  const pixels = (/** @type {Point} */ point) => normalisedToPixels(point, [width, height]);
  return {
    pairs: pairs.map(({ handle, target }) => ({ handle: pixels(handle), target: pixels(target) })),
    pins: pins.map(pixels),
  };
}
