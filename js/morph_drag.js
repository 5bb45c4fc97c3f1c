/**
 * Gives the nodes that drag their point picker. The text widget `points` keeps the value, its place in the workflow file
 * and its input socket; it is hidden while the picker stands in for it.
 *
 * What the picker shows is looked up whenever ComfyUI draws a frame, and every change of the graph makes it draw one.
 * So nothing of other nodes needs to be watched, and nothing can be missed.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { PointPicker } from "./point_picker.js";
import { isAlphaOf, isLinked, keyOf, loadedFile, locatorOf, originOf } from "./upstream_image.js";

/**
 * @typedef {import("./picture_view.js").Picture} Picture
 * @typedef {import("./upstream_image.js").ImageFile} ImageFile
 */

const NODES = new Set(["MorphDragDragLatentOptimize", "MorphDragDragWarp"]);
const MIN_HEIGHT = 280;
const NEW_NODE_HEIGHT = 620;
const FIRST_WITH_PICKER_IN_VUE_NODES = 1030; // front end 1.30; before, Vue nodes show no DOM widget
const MAY_HAVE_ALPHA = /\.(png|webp|gif|tiff?|avif)$/i;
const CONNECT_AN_IMAGE = "Connect an image to pick points on.";
const RUN_ONCE = "Run once to see the image here, or connect a Load Image.";
const POINTS_FROM_LINK = "The points come from the link.";
const MASK_NOT_CONNECTED = "The red mask has no effect: connect the mask input.";

/**
 * The picker of each node that has one. Weakly: not every front end tells a node that it is removed.
 * @type {WeakMap<Comfy.GraphNode, {picker: PointPicker, refresh: () => void}>}
 */
const pickers = new WeakMap();

/**
 * Those of the nodes in the graph that is shown, which is none of a subgraph's that is gone.
 * @type {Set<PointPicker>}
 */
let inView = new Set();

/**
 * What each picture of a node's own last run was a picture of, by its address.
 * @type {Map<string, string | null>}
 */
const pictured = new Map();

let widgetsMade = 0;

app.registerExtension({
  name: "MorphAndDrag.PointPicker",

  setup() {
    const { canvas } = app;
    const drawForeground = canvas.onDrawForeground;
    canvas.onDrawForeground = function (...drawing) {
      drawForeground?.apply(this, drawing);
      refreshPickers(canvas.graph?.nodes ?? []);
    };
    api.addEventListener("executed", () => canvas.setDirty(true, true));
  },

  nodeCreated(node) {
    if (NODES.has(node.comfyClass)) attachPicker(node);
  },
});

/**
 * Let the pickers of these nodes follow the graph, and let go of all others. Front end 1.27 clears a graph, or removes a
 * subgraph, without a word to the nodes inside of subgraphs; so this looks at what is there.
 * @param {Comfy.GraphNode[]} nodes
 */
function refreshPickers(nodes) {
  const before = inView;
  inView = new Set(nodes.flatMap((node) => pickers.get(node)?.picker ?? []));
  for (const picker of before) if (!inView.has(picker)) picker.disconnect();
  for (const picker of inView) if (!before.has(picker)) picker.connect();
  nodes.forEach(refreshSafely);
}

/**
 * An error in a frame would come again in every frame and stop the whole graph from being drawn.
 * @param {Comfy.GraphNode} node
 */
function refreshSafely(node) {
  try {
    pickers.get(node)?.refresh();
  } catch (error) {
    pickers.delete(node);
    console.error("The point picker has stopped following the graph:", error);
  }
}

/** @param {Comfy.GraphNode} node */
function attachPicker(node) {
  const points = /** @type {Comfy.Widget} */ (node.widgets?.find((widget) => widget.name === "points"));
  const picker = new PointPicker({
    onChange(text) {
      points.value = text;
      node.graph?.setDirtyCanvas(true, true);
    },
    onEditEnd: recordForUndo,
  });
  // After undo a new node has the old one's id, and Vue nodes go on showing the old element where the name is the same.
  widgetsMade += 1;
  const widget = node.addDOMWidget(`point_picker_${widgetsMade}`, "morph_point_picker", picker.element, {
    getMinHeight: () => MIN_HEIGHT,
    getValue: () => "",
    hideOnZoom: false,
    hideInPanel: true, // the side panel would take the element out of the node
    serialize: false,
  });
  widget.serialize = false;
  hideText(points, widget);
  forwardNavigation(picker.element);
  node.setSize([node.size[0], Math.max(node.size[1], NEW_NODE_HEIGHT)]);

  /** @type {Comfy.ViewedFile | null} */
  let lastRun = null;
  pickers.set(node, {
    picker,
    refresh() {
      const isHidden = !isTextBeingLinked();
      if (points.hidden !== isHidden) points.hidden = isHidden;
      picker.setZoom(app.canvas.ds.scale);
      picker.setRadius(radiusOf(node));
      showImage(picker, node, lastRun);
      picker.setValue(/** @type {string} */ (points.value));
      picker.setReadOnly(isLinked(node, "points") ? POINTS_FROM_LINK : null);
    },
  });
  const { onExecuted } = node;
  node.onExecuted = function (output, ...rest) {
    onExecuted?.call(this, output, ...rest);
    lastRun = output?.picker_image?.[0] ?? null;
    const origin = originOf(node, "image");
    if (lastRun) pictured.set(view(lastRun), origin && keyOf(origin));
    node.setDirtyCanvas(true, true);
  };
}

/**
 * Hide the text in favour of the picker. Its socket lies at the picker's top then, not upon the next widget's.
 * @param {Comfy.Widget} points the text widget
 * @param {Comfy.Widget} picker the picker's widget
 */
function hideText(points, picker) {
  points.hidden = true;
  // Front ends between look at this in Vue nodes. Older ones do too, but can show only the text there.
  if (frontEndVersion() >= FIRST_WITH_PICKER_IN_VUE_NODES) points.options.hidden = true;
  // Older ones leave room for hidden widgets.
  points.computeLayoutSize = () => ({ minHeight: 0, maxHeight: 0, minWidth: 0 });
  Object.defineProperty(points, "y", { get: () => picker.y, set() {}, enumerable: true, configurable: true });
}

/**
 * @param {Comfy.GraphNode} node
 * @returns {number | undefined} what its widget says, where it has one
 */
function radiusOf(node) {
  const value = node.widgets?.find((widget) => widget.name === "radius")?.value;
  return typeof value === "number" ? value : undefined;
}

/** Vue nodes have a socket only in a row that is shown: that of `points` is while a text looks for an input. */
function isTextBeingLinked() {
  const { isConnecting, state, renderLinks } = app.canvas.linkConnector;
  const isText = (/** @type {{fromSlot: Comfy.Slot}} */ { fromSlot }) => fromSlot.type === "STRING";
  return LiteGraph.vueNodesMode && isConnecting && state.connectingTo === "input" && renderLinks.some(isText);
}

/** @returns {number} 1.58 is 1058 */
function frontEndVersion() {
  const [major, minor] = (globalThis.__COMFYUI_FRONTEND_VERSION__ ?? "").split(".").map(Number);
  return major * 1000 + minor;
}

/**
 * @param {PointPicker} picker
 * @param {Comfy.GraphNode} node
 * @param {Comfy.ViewedFile | null} lastRun
 */
function showImage(picker, node, lastRun) {
  const origin = originOf(node, "image");
  const file = origin && loadedFile(origin);
  const maskOrigin = originOf(node, "mask");
  picker.setMaskNote(maskOrigin ? "" : MASK_NOT_CONNECTED);
  if (origin && file) {
    const showMask = !maskOrigin || isAlphaOf(maskOrigin, origin);
    picker.setPicture(pictureOf(file, showMask), `${file.filename} cannot be loaded.`);
    return;
  }
  const url = origin && (lastImageOf(origin.node) ?? ownImage(node, lastRun, keyOf(origin)));
  picker.setPicture(url ? { url } : null, origin ? RUN_ONCE : CONNECT_AN_IMAGE);
}

/**
 * @param {ImageFile} file
 * @param {boolean} showMask
 * @returns {Picture}
 */
function pictureOf(file, showMask) {
  if (!MAY_HAVE_ALPHA.test(file.filename)) return { url: view(file) };
  const [opaqueUrl, alphaUrl] = ["rgb", "a"].map((channel) => view({ ...file, channel }));
  return { url: view(file), opaqueUrl, alphaUrl, showMask };
}

/** @param {Comfy.GraphNode} node */
function lastImageOf(node) {
  if (node.imgs?.[0]?.src) return node.imgs[0].src;
  const image = app.nodeOutputs?.[locatorOf(node)]?.images?.[0];
  return image ? view(image) : null;
}

/**
 * The picture of the node's own last run, unless that had its image from elsewhere. After undo the node is a new one
 * that has not seen the run; ComfyUI has. A run this page has not seen, of a workflow just opened, was of that workflow.
 * @param {Comfy.GraphNode} node
 * @param {Comfy.ViewedFile | null} lastRun
 * @param {string} origin
 */
function ownImage(node, lastRun, origin) {
  const image = lastRun ?? app.nodeOutputs?.[locatorOf(node)]?.picker_image?.[0];
  if (!image) return null;
  const url = view(image);
  if (!pictured.has(url)) pictured.set(url, origin);
  return pictured.get(url) === origin ? url : null;
}

/** @param {Comfy.ViewedFile} file */
function view({ filename, subfolder = "", type = "temp", ...options }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, ...options })}`);
}

function recordForUndo() {
  const tracker = app.extensionManager.workflow.activeWorkflow?.changeTracker;
  if (tracker?.captureCanvasState) tracker.captureCanvasState();
  else tracker?.checkState(); // before front end 1.43
}

/**
 * The wheel, the middle button and the space bar are the graph's, over the picker as anywhere.
 * @param {HTMLElement} element
 */
function forwardNavigation(element) {
  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      app.canvas.processMouseWheel(event);
    },
    { passive: false },
  );
  element.addEventListener("pointerdown", (event) => {
    if (event.button === 1) app.canvas.processMouseDown(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (event.buttons & 4) app.canvas.processMouseMove(event);
  });
  element.addEventListener("pointerup", (event) => {
    if (event.button === 1) app.canvas.processMouseUp(event);
  });
  element.addEventListener("keydown", (event) => {
    const isTyped = event.target instanceof Element && event.target.matches("input, button");
    if (event.key === " " && !isTyped) app.canvas.processKey(event);
  });
}
