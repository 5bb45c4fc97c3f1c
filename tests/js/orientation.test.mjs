import assert from "node:assert/strict";
import { test } from "node:test";

import { orientationOf } from "../../js/orientation.js";

const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const HEADING = [...ascii("Exif"), 0, 0];

function ascii(text) {
  return [...text].map((letter) => letter.charCodeAt(0));
}

function number(value, size, isLittle) {
  const bytes = Array.from({ length: size }, (_, index) => (value >> (8 * (size - 1 - index))) & 255);
  return isLittle ? bytes.reverse() : bytes;
}

/** EXIF data with another tag before the orientation. */
function exif(orientation, isLittle = false) {
  const entry = (tag, type, value) => [
    ...number(tag, 2, isLittle),
    ...number(type, 2, isLittle),
    ...number(1, 4, isLittle),
    ...number(value, 2, isLittle),
    ...[0, 0],
  ];
  return [
    ...ascii(isLittle ? "II" : "MM"),
    ...number(42, 2, isLittle),
    ...number(8, 4, isLittle),
    ...number(2, 2, isLittle),
    ...entry(0x0100, 3, 6),
    ...entry(0x0112, 3, orientation),
    ...[0, 0, 0, 0],
  ];
}

function png(...chunks) {
  const parts = chunks.map(([name, data]) => [...number(data.length, 4), ...ascii(name), ...data, 0, 0, 0, 0]);
  return Uint8Array.from([...PNG_SIGNATURE, ...parts.flat()]).buffer;
}

function webp(...chunks) {
  const padded = (data) => (data.length % 2 ? [...data, 0] : data);
  const parts = chunks.map(([name, data]) => [...ascii(name), ...number(data.length, 4, true), ...padded(data)]);
  const body = [...ascii("WEBP"), ...parts.flat()];
  return Uint8Array.from([...ascii("RIFF"), ...number(body.length, 4, true), ...body]).buffer;
}

test("the orientation is found in PNG and WebP files of either byte order, wherever it stands", () => {
  for (const isLittle of [false, true]) {
    for (let orientation = 1; orientation <= 8; orientation++) {
      const data = exif(orientation, isLittle);
      assert.equal(orientationOf(png(["IHDR", Array(13).fill(0)], ["eXIf", data], ["IDAT", [1]])), orientation);
      assert.equal(orientationOf(png(["IDAT", [1, 2, 3]], ["eXIf", data], ["IEND", []])), orientation);
      assert.equal(orientationOf(webp(["VP8X", Array(10).fill(0)], ["VP8L", [1, 2, 3]], ["EXIF", data])), orientation);
      assert.equal(orientationOf(webp(["EXIF", [...HEADING, ...data]])), orientation);
    }
  }
});

test("files that say nothing, or nothing that means anything, are upright", () => {
  assert.equal(orientationOf(png(["IHDR", [0]], ["IEND", []])), 1);
  assert.equal(orientationOf(webp(["VP8L", [1]])), 1);
  for (const orientation of [0, 9, 65535]) assert.equal(orientationOf(png(["eXIf", exif(orientation)])), 1);
  assert.equal(orientationOf(png(["eXIf", ascii("nonsense that is long enough")])), 1);
  assert.equal(orientationOf(Uint8Array.from([0xff, 0xd8, 0xff, 0xe1, ...HEADING, ...exif(6)]).buffer), 1, "JPEG");
  assert.equal(orientationOf(Uint8Array.from(ascii("RIFF....WAVEEXIF")).buffer), 1);
});

test("files that end too early, and lengths that lead out of them, are upright", () => {
  const whole = png(["eXIf", exif(6)]);
  for (let length = 0; length < 8 + 8 + exif(6).length - 8; length++) {
    assert.equal(orientationOf(whole.slice(0, length)), 1);
  }
  const far = exif(6);
  far.splice(4, 4, 0xff, 0xff, 0xff, 0xff);
  assert.equal(orientationOf(png(["eXIf", far])), 1);
  const many = exif(3);
  many.splice(8, 2, 0xff, 0xff);
  many.splice(22, 2, 0, 0);
  assert.equal(orientationOf(png(["eXIf", many])), 1);
});
