/** The elements that a point picker is made of, without any behaviour. */

const STAGE_LABEL =
  "Point picker. Click to place a handle, then its target; with Shift, to set a pin. Keys: Enter adds a pair, " +
  "with Shift a pin, Page Up and Page Down or brackets choose an end or a pin, arrow keys move it by one pixel, with " +
  "Shift by ten, Delete removes it, Escape cancels.";

export function buildPickerElements() {
  loadStyle();
  const { stage, ...inStage } = buildStage();
  const { details, ...inDetails } = buildDetails();
  const { tools, ...inTools } = buildTools();
  const root = made("div", { className: "morph-point-picker" });
  root.append(stage, details, tools);
  return { root, stage, ...inStage, ...inDetails, ...inTools };
}

/** What lies upon each other, from below: the image, what is masked of it, its preview, the points, the message. */
function buildStage() {
  const image = made("img", { alt: "", draggable: false, hidden: true });
  const mask = made("canvas", { className: "mask", hidden: true });
  const preview = made("canvas", { className: "preview", hidden: true });
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const message = made("div", { className: "message" });
  const stage = made("div", { className: "stage", tabIndex: 0, role: "application", ariaLabel: STAGE_LABEL });
  stage.append(image, mask, preview, drawing, message);
  return { stage, image, mask, preview, drawing, message };
}

/** The hint, or the numbers of what is selected. */
function buildDetails() {
  const chip = made("span", { className: "chip" });
  const inputs = ["handle", "target", "pin"].flatMap((end) => [coordinate(end, 0, "x"), coordinate(end, 1, "y")]);
  const ofPair = [labelled("Handle", inputs.slice(0, 2)), labelled("Target", inputs.slice(2, 4))];
  const ofPin = made("span", { className: "coordinates" });
  ofPin.append(...inputs.slice(4));
  const numbers = made("div", { className: "numbers", hidden: true });
  numbers.append(chip, ...ofPair, ofPin);
  const hint = made("span", { className: "hint", role: "status" });
  const details = made("div", { className: "bar details" });
  details.append(hint, numbers);
  return { details, hint, numbers, chip, ofPair, ofPin, inputs };
}

function buildTools() {
  const swap = made("button", { type: "button" });
  swap.append("Swap", made("span", { className: "if-wider", textContent: " direction" }));
  swap.title = "Exchange handle and target: of the selected pair, or of all when none is selected";
  const pin = made("button", { type: "button", textContent: "Pin" });
  pin.title = "The next click sets a pin: what lies there is to stay where it is. So does a click with Shift";
  const previewSwitch = made("button", { type: "button", textContent: "Preview" });
  previewSwitch.title = "Warp the picture under the hand while a point is pulled";
  const clear = made("button", { type: "button", textContent: "Clear", title: "Remove all points" });
  const place = made("span", { className: "place", title: "Pixels of the image" });
  const tools = made("div", { className: "bar tools" });
  tools.append(swap, pin, previewSwitch, clear, place);
  return { tools, swap, pin, previewSwitch, clear, place };
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, unknown>} properties
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function made(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

/**
 * @param {string} end
 * @param {number} axis
 * @param {string} name of the axis
 */
function coordinate(end, axis, name) {
  const label = `${name} of the ${end}, in pixels`;
  const input = made("input", { type: "number", min: 0, step: 1, ariaLabel: label, title: label });
  Object.assign(input.dataset, { end, axis });
  return input;
}

/**
 * @param {string} name
 * @param {HTMLElement[]} inputs
 */
function labelled(name, inputs) {
  const group = made("span", { className: "coordinates" });
  group.append(made("span", { className: "if-wide", textContent: name }), ...inputs);
  return group;
}

/** One sheet for all pickers, added with the first of them. */
function loadStyle() {
  const href = new URL("./point_picker.css", import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  document.head.append(made("link", { rel: "stylesheet", href }));
}
