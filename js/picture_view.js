/**
 * Shows an image, and tints what its alpha channel masks: transparent is masked in ComfyUI.
 *
 * @typedef {{url: string, opaqueUrl?: string, alphaUrl?: string, showMask?: boolean}} Picture The other two are for
 *   images that may have an alpha channel: the same image without it, and it alone, neither turned as the file's EXIF
 *   data say. What is transparent is tinted where `showMask` is set.
 */

import { drawMask } from "./mask_overlay.js";
import { orientationOf, upright } from "./orientation.js";

export class PictureView {
  /**
   * @param {HTMLImageElement} image
   * @param {HTMLCanvasElement} mask
   * @param {() => void} onShown another image is shown now, or none
   */
  constructor(image, mask, onShown) {
    this._image = image;
    this._mask = mask;
    this._onShown = onShown;
    /** @type {Picture | null} */
    this._picture = null;
    /** @type {[number, number] | null} width and height of what is shown; null when nothing is */
    this.size = null;
  }

  get isMaskShown() {
    return !this._mask.hidden;
  }

  /**
   * Show a picture as soon as it is loaded; nothing, if there is none or it cannot be loaded.
   * @param {Picture | null} picture
   */
  show(picture) {
    if (picture?.url === this._picture?.url && picture?.showMask === this._picture?.showMask) return;
    this._picture = picture;
    if (picture) this._load(picture);
    else this._display(null, false);
  }

  /** @param {Picture} picture */
  async _load(picture) {
    const { url, opaqueUrl = url, alphaUrl = url, showMask = false } = picture;
    const mayHaveAlpha = Boolean(picture.opaqueUrl);
    const orientation = mayHaveAlpha ? await orientationAt(url) : 1;
    const image = await loaded(orientation === 1 ? url : alphaUrl, orientation);
    if (picture !== this._picture) return; // another one was asked for meanwhile
    const isMasked = image !== null && mayHaveAlpha && drawMask(this._mask, image);
    const shown = isMasked || orientation !== 1 ? await loaded(opaqueUrl, orientation) : image;
    if (picture === this._picture) this._display(shown, isMasked && showMask);
  }

  /**
   * @param {HTMLImageElement | null} image
   * @param {boolean} isMaskShown
   */
  _display(image, isMaskShown) {
    if (image) this._image.src = image.src;
    else this._image.removeAttribute("src");
    this._image.hidden = image === null;
    this._mask.hidden = !isMaskShown;
    this.size = image && [image.naturalWidth, image.naturalHeight];
    this._onShown();
  }
}

/**
 * @param {string} url
 * @param {number} orientation
 * @returns {Promise<HTMLImageElement | null>} turned upright; null where there is no such image
 */
async function loaded(url, orientation) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return orientation === 1 ? image : await upright(image, orientation);
  } catch {
    return null;
  }
}

/**
 * @param {string} url
 * @returns {Promise<number>} the EXIF orientation of a file; 1 where it cannot be read
 */
async function orientationAt(url) {
  try {
    const response = await fetch(url);
    return orientationOf(await response.arrayBuffer());
  } catch {
    return 1;
  }
}
