/**
 * Shows what an image's alpha channel masks. In ComfyUI transparent is masked, which is white in the MASK.
 */

const LONGEST_SIDE = 1024; // of the overlay; it is stretched over the picture
const VISIBLE = 8; // of 255: less may be rounding of a picture without a mask

/**
 * Tint a canvas where an image is transparent.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLImageElement} alpha loaded; its colours do not matter
 * @param {string} tint CSS colour
 * @returns {boolean} whether anything is masked
 */
export function drawMask(canvas, alpha, tint) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(alpha.naturalWidth, alpha.naturalHeight));
  canvas.width = Math.max(1, Math.round(alpha.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(alpha.naturalHeight * scale));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.fillStyle = tint;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(alpha, 0, 0, canvas.width, canvas.height);
  return hasVisiblePixel(context.getImageData(0, 0, canvas.width, canvas.height).data);
}

/** @param {Uint8ClampedArray} data */
function hasVisiblePixel(data) {
  for (let index = 3; index < data.length; index += 4) if (data[index] > VISIBLE) return true;
  return false;
}
