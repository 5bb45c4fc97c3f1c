import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { colourOf } from "../../js/point_drawing.js";

const { colours } = JSON.parse(readFileSync(new URL("../colour_vectors.json", import.meta.url), "utf8"));

// As in CSS Color Module Level 4.
const OKLAB_TO_LMS = [
  [1, 0.3963377773761749, 0.2158037573099136],
  [1, -0.1055613458156586, -0.0638541728258133],
  [1, -0.0894841775298119, -1.2914855480194092],
];
const LMS_TO_XYZ = [
  [1.2268798758459243, -0.5578149944602171, 0.2813910456659647],
  [-0.0405757452148008, 1.112286803280317, -0.0717110580655164],
  [-0.0763729366746601, -0.4214933324022432, 1.5869240198367816],
];
const XYZ_TO_SRGB = [
  [12831 / 3959, -329 / 214, -1974 / 3959],
  [-851781 / 878810, 1648619 / 878810, 36519 / 878810],
  [705 / 12673, -2585 / 12673, 705 / 667],
];

function times(matrix, vector) {
  return matrix.map((row) => row.reduce((sum, factor, index) => sum + factor * vector[index], 0));
}

/** What a screen shows of a colour. */
function shown(css) {
  const [lightness, chroma, degrees] = css
    .match(/^oklch\((.+)\)$/)[1]
    .split(" ")
    .map(Number);
  const hue = (degrees * Math.PI) / 180;
  const lms = times(OKLAB_TO_LMS, [lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)]).map((root) => root ** 3);
  return times(XYZ_TO_SRGB, times(LMS_TO_XYZ, lms)).map((linear) => {
    const light = Math.min(Math.max(linear, 0), 1);
    return Math.round(255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055));
  });
}

for (const { index, css, rgb } of colours) {
  test(`pair ${index} has the vectors' colour`, () => {
    assert.equal(colourOf(index), css);
    assert.deepEqual(shown(css), rgb);
  });
}
