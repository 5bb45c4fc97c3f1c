/**
 * Shows what an image's alpha channel masks. In ComfyUI transparent is masked, which is white in the MASK.
 */

const LONGEST_SIDE = 1024; // of the overlay; it is stretched over the picture
const RED = [255, 60, 60];
const OPACITY = 0.45; // of what is wholly masked
const VISIBLE = 8; // of 255: less may be rounding of a picture without a mask

/**
 * Tint a canvas where an image is transparent.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLImageElement} alpha loaded; its colours do not matter
 * @returns {boolean} whether anything is masked
 */
export function drawMask(canvas, alpha) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(alpha.naturalWidth, alpha.naturalHeight));
  canvas.width = Math.max(1, Math.round(alpha.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(alpha.naturalHeight * scale));
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.fillStyle = `rgb(${RED.join(" ")} / ${OPACITY})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(alpha, 0, 0, canvas.width, canvas.height);
  return hasVisiblePixel(context.getImageData(0, 0, canvas.width, canvas.height).data);
}

/**
 * Which pixels are masked, however little, of a tinted canvas at another size.
 * @param {HTMLCanvasElement} canvas
 * @param {{width: number, height: number}} size
 * @returns {Uint8Array} 1 or 0 for each
 */
export function maskedPixels(canvas, { width, height }) {
  const scaled = document.createElement("canvas");
  Object.assign(scaled, { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (scaled.getContext("2d", { willReadFrequently: true }));
  context.drawImage(canvas, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, at) => (data[4 * at + 3] > VISIBLE ? 1 : 0));
}

/** @param {Uint8ClampedArray} data */
function hasVisiblePixel(data) {
  for (let index = 3; index < data.length; index += 4) if (data[index] > VISIBLE) return true;
  return false;
}
