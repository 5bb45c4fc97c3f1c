/**
 * Draws pairs of points as numbered arrows and pins as squares, in SVG: sharp at every zoom. It decides nothing and remembers nothing.
 */

import { distance, normalisedToBox } from "./point_geometry.js";

/**
 * @typedef {import("./point_geometry.js").Point} Point
 * @typedef {import("./point_geometry.js").Frame} Frame
 * @typedef {import("./point_value.js").Pair} Pair
 */

const SVG = "http://www.w3.org/2000/svg";
const HANDLE_RADIUS = 9;
const TARGET_RADIUS = 7;
const PIN_RADIUS = 7;
export const PIN_COLOUR = "#fff";
const ARROW_LENGTH = 9;
const ARROW_WIDTH = 5;
const GOLDEN_ANGLE = 137.508; // degrees; neighbours in the list, and their neighbours, are far apart in hue
const FIRST_HUE = 215;

/**
 * The colour of a pair, by its place in the list.
 * @param {number} index
 * @returns {string} CSS
 */
export function colourOf(index) {
  const hue = Math.round(FIRST_HUE + index * GOLDEN_ANGLE) % 360;
  return `oklch(0.8 0.16 ${hue})`; // all equally light, for the dark numbers on them
}

/**
 * The arrow of one pair: a numbered disc for the handle, a diamond with a cross for the target.
 * @param {Pair} pair normalised
 * @param {number} index place in the list
 * @param {Frame} frame where the image lies
 * @param {number} unit size of one screen pixel in the frame's pixels
 * @param {import("./point_geometry.js").Mark["end"] | null} selectedEnd
 * @returns {SVGGElement}
 */
export function arrow(pair, index, frame, unit, selectedEnd) {
  const handle = normalisedToBox(pair.handle, frame);
  const target = normalisedToBox(pair.target, frame);
  const group = element("g", { class: "arrow", "data-pair": index + 1, style: `color: ${colourOf(index)}` });
  if (selectedEnd === "handle" || selectedEnd === "target") group.classList.add("selected");
  group.append(
    ...shaft(handle, target, unit),
    at(target, unit, [diamond(selectedEnd === "target")]),
    at(handle, unit, [disc(index, selectedEnd === "handle")]),
  );
  return group;
}

/**
 * A handle that has no target yet, with a line to where the target would be.
 * @param {Point} handle normalised
 * @param {Point | null} towards normalised
 * @param {number} index the place that the pair will have
 * @param {Frame} frame
 * @param {number} unit
 * @returns {SVGGElement}
 */
export function unfinishedArrow(handle, towards, index, frame, unit) {
  const start = normalisedToBox(handle, frame);
  const group = element("g", { class: "arrow unfinished", style: `color: ${colourOf(index)}` });
  if (towards) group.append(...shaft(start, normalisedToBox(towards, frame), unit));
  group.append(at(start, unit, [disc(index, true)]));
  return group;
}

/**
 * A pin: a white square with a hole.
 * @param {Point} place normalised
 * @param {Frame} frame
 * @param {number} unit
 * @param {boolean} isSelected
 * @returns {SVGGElement}
 */
export function pinMark(place, frame, unit, isSelected) {
  const marks = [square(PIN_RADIUS, "mark"), element("circle", { r: 2, class: "hole" })];
  const group = at(
    normalisedToBox(place, frame),
    unit,
    isSelected ? [square(PIN_RADIUS + 4, "halo"), ...marks] : marks,
  );
  group.classList.add("pin");
  group.style.color = PIN_COLOUR;
  return group;
}

/**
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, string | number>} attributes
 */
function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

/**
 * Marks keep their size on the screen: they are drawn in screen pixels around a place, and scaled by the unit.
 * @param {Point} place
 * @param {number} unit
 * @param {SVGElement[]} marks
 */
function at([x, y], unit, marks) {
  const group = element("g", { transform: `translate(${x} ${y}) scale(${unit})` });
  group.append(...marks);
  return group;
}

/**
 * Every line is drawn twice, dark and wide below, coloured above: it shows on any picture.
 * @param {Point} from
 * @param {Point} to
 * @param {number} unit
 */
function shaft(from, to, unit) {
  const length = distance(from, to) / unit;
  if (length < HANDLE_RADIUS + TARGET_RADIUS) return [];
  const [dx, dy] = [(to[0] - from[0]) / length, (to[1] - from[1]) / length]; // one screen pixel along the arrow
  const along = (/** @type {number} */ pixels, aside = 0) =>
    `${from[0] + dx * pixels - dy * aside} ${from[1] + dy * pixels + dx * aside}`;
  const tip = length - TARGET_RADIUS;
  const base = tip - ARROW_LENGTH;
  const path = `M${along(0)}L${along(Math.max(base, 0))}`;
  const head = `M${along(tip)}L${along(base, ARROW_WIDTH)}L${along(base, -ARROW_WIDTH)}Z`;
  return [
    element("path", { d: path, class: "edge line", "stroke-width": 5 * unit }),
    element("path", { d: head, class: "edge", "stroke-width": 3 * unit }),
    element("path", { d: path, class: "line", "stroke-width": 2.5 * unit }),
    element("path", { d: head, class: "head" }),
  ];
}

/**
 * @param {number} index
 * @param {boolean} isSelected
 */
function disc(index, isSelected) {
  const group = element("g", { class: "handle" });
  if (isSelected) group.append(element("circle", { r: HANDLE_RADIUS + 4, class: "halo" }));
  const number = element("text", { "text-anchor": "middle", "dominant-baseline": "central" });
  number.textContent = String(index + 1);
  group.append(element("circle", { r: HANDLE_RADIUS, class: "mark" }), number);
  return group;
}

/**
 * @param {number} radius
 * @param {string} kind
 */
function square(radius, kind) {
  return element("rect", { x: -radius, y: -radius, width: 2 * radius, height: 2 * radius, rx: 2, class: kind });
}

/** @param {boolean} isSelected */
function diamond(isSelected) {
  const r = TARGET_RADIUS;
  const outline = (/** @type {number} */ radius) => `M0 ${-radius}L${radius} 0L0 ${radius}L${-radius} 0Z`;
  const group = element("g", { class: "target" });
  if (isSelected) group.append(element("path", { d: outline(r + 6), class: "halo" }));
  group.append(
    element("path", { d: outline(r + 1.5), class: "mark" }),
    element("path", { d: `M${-r / 2} 0H${r / 2}M0 ${-r / 2}V${r / 2}`, class: "cross" }),
  );
  return group;
}
