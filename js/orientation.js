/**
 * How a picture's file says that it is turned, and pictures turned upright.
 *
 * ComfyUI turns every image that it loads as its EXIF data say; browsers do so with some kinds of files only.
 */

const PNG = 0x89504e47; // its first four bytes
const LITTLE_ENDIAN = 0x4949;
const BIG_ENDIAN = 0x4d4d;
const ORIENTATION_TAG = 0x0112;
/**
 * Of every EXIF orientation but 1: which way the picture's own axes go in the upright one, as x', y' of x and of y.
 * @type {Record<number, number[]>}
 */
const AXES = {
  2: [-1, 0, 0, 1],
  3: [-1, 0, 0, -1],
  4: [1, 0, 0, -1],
  5: [0, 1, 1, 0],
  6: [0, 1, -1, 0],
  7: [0, -1, -1, 0],
  8: [0, -1, 1, 0],
};

/**
 * The EXIF orientation of a PNG or WebP file.
 * @param {ArrayBuffer} file
 * @returns {number} 1 to 8; 1, which is upright, for files that say nothing or are of another kind
 */
export function orientationOf(file) {
  const bytes = new DataView(file);
  try {
    const exif = exifIn(bytes);
    const orientation = exif === null ? 1 : orientationIn(bytes, exif);
    return orientation in AXES ? orientation : 1;
  } catch (error) {
    if (error instanceof RangeError) return 1; // the file ends too early
    throw error;
  }
}

/**
 * A picture turned as its file means it.
 * @param {HTMLImageElement} image as it is in the file: nothing has turned it yet
 * @param {number} orientation 2 to 8
 * @returns {Promise<HTMLImageElement>}
 */
export async function upright(image, orientation) {
  const [xOfX, yOfX, xOfY, yOfY] = AXES[orientation];
  const isOnItsSide = xOfX === 0;
  const canvas = document.createElement("canvas");
  canvas.width = isOnItsSide ? image.naturalHeight : image.naturalWidth;
  canvas.height = isOnItsSide ? image.naturalWidth : image.naturalHeight;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const left = xOfX + xOfY < 0 ? canvas.width : 0; // an axis that is turned round begins at the other side
  const top = yOfX + yOfY < 0 ? canvas.height : 0;
  context.setTransform(xOfX, yOfX, xOfY, yOfY, left, top);
  context.drawImage(image, 0, 0);
  const turned = new Image();
  turned.src = canvas.toDataURL();
  await turned.decode();
  return turned;
}

/**
 * Where a file's EXIF data begin, or null.
 * @param {DataView} bytes
 */
function exifIn(bytes) {
  if (bytes.getUint32(0) === PNG) {
    return dataOfChunk(bytes, "eXIf", 8, (at) => [nameAt(bytes, at + 4), 12 + bytes.getUint32(at)]);
  }
  if (nameAt(bytes, 0) !== "RIFF" || nameAt(bytes, 8) !== "WEBP") return null;
  return dataOfChunk(bytes, "EXIF", 12, (at) => {
    const length = bytes.getUint32(at + 4, true);
    return [nameAt(bytes, at), 8 + length + (length % 2)];
  });
}

/**
 * Where the data of a chunk begin, or null.
 * @param {DataView} bytes
 * @param {string} wanted
 * @param {number} start where the first chunk is
 * @param {(at: number) => [string, number]} read the name and the whole size of the chunk at a place
 */
function dataOfChunk(bytes, wanted, start, read) {
  for (let at = start; at + 8 <= bytes.byteLength; ) {
    const [name, size] = read(at);
    if (name === wanted) return at + 8;
    at += size;
  }
  return null;
}

/**
 * @param {DataView} bytes
 * @param {number} exif where the data begin
 */
function orientationIn(bytes, exif) {
  const start = nameAt(bytes, exif) === "Exif" ? exif + 6 : exif; // some write JPEG's heading too
  const order = bytes.getUint16(start);
  if (order !== LITTLE_ENDIAN && order !== BIG_ENDIAN) return 1;
  const isLittle = order === LITTLE_ENDIAN;
  const directory = start + bytes.getUint32(start + 4, isLittle);
  const count = bytes.getUint16(directory, isLittle);
  for (let entry = directory + 2; entry < directory + 2 + 12 * count; entry += 12) {
    if (bytes.getUint16(entry, isLittle) === ORIENTATION_TAG) return bytes.getUint16(entry + 8, isLittle);
  }
  return 1;
}

/**
 * @param {DataView} bytes
 * @param {number} at
 */
function nameAt(bytes, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((offset) => bytes.getUint8(at + offset)));
}
