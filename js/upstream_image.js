/**
 * Which image will come in at an input, as far as the graph tells before anything is run. It reads nodes and links of
 * ComfyUI's graph and changes nothing.
 *
 * @typedef {{filename: string, subfolder: string, type: string}} ImageFile as ComfyUI names a file to /view
 * @typedef {{node: Comfy.GraphNode, slot: number, hosts: Comfy.GraphNode[]}} Origin an output, and the subgraph nodes that were entered
 *   on the way to it, the outermost first
 */

const MOST_STEPS = 200; // a loop of reroutes would otherwise never end
const MUTED = 2;
const BYPASSED = 4;
const MASK_OUTPUT = 1; // of Load Image

/**
 * The output that feeds an input: through reroutes, bypassed nodes, and in and out of subgraphs.
 * @param {Comfy.GraphNode} node
 * @param {string} inputName
 * @returns {Origin | null} null when nothing does
 */
export function originOf(node, inputName) {
  return originOfInput(node, indexOfInput(node, inputName), [], 0);
}

/**
 * A name for an origin, which it keeps when undo makes its node anew.
 * @param {Origin} origin
 * @returns {string}
 */
export function keyOf({ node, slot, hosts }) {
  return [...[...hosts, node].map(locatorOf), slot].join(" ");
}

/**
 * Whether anything is linked to an input, whatever it leads to.
 * @param {Comfy.GraphNode} node
 * @param {string} inputName
 */
export function isLinked(node, inputName) {
  return Boolean(linkInto(node, indexOfInput(node, inputName)));
}

/**
 * The file that a Load Image, or a loader declared like it, is set to.
 * @param {Origin} origin
 * @returns {ImageFile | null} null when the node is no such loader
 */
export function loadedFile({ node, hosts }) {
  if (!node.constructor.nodeData?.input?.required?.image?.[1]?.image_upload) return null;
  const name = valueOfWidget(node, "image", hosts);
  return typeof name === "string" && name !== "" ? imageFile(name) : null;
}

/**
 * Whether an output is the MASK of an image loader, which is the image's alpha channel.
 * @param {Origin} maskOrigin
 * @param {Origin} imageOrigin
 */
export function isAlphaOf(maskOrigin, imageOrigin) {
  return maskOrigin.node === imageOrigin.node && maskOrigin.slot === MASK_OUTPUT;
}

/**
 * What ComfyUI calls a node in its table of outputs.
 * @param {Comfy.GraphNode} node that is in a graph
 * @returns {string}
 */
export function locatorOf(node) {
  const graph = /** @type {Comfy.Graph} */ (node.graph);
  return graph.rootGraph === graph ? String(node.id) : `${graph.id}:${node.id}`;
}

/**
 * A file as a loader's widget names it: "folder/name.png", and "[output]" after it when it is not an input.
 * @param {string} name
 * @returns {ImageFile}
 */
export function imageFile(name) {
  const [, path, type = "input"] = /** @type {RegExpMatchArray} */ (name.match(/^(.*?)(?: \[(\w+)\])?$/s));
  const cut = path.lastIndexOf("/");
  return { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type };
}

/**
 * @param {Comfy.GraphNode} node
 * @param {string} name
 */
function indexOfInput(node, name) {
  return node.inputs.findIndex((input) => input.name === name);
}

/**
 * A subgraph node's own `getInputLink` answers with a link inside it; that of the base class with the one outside.
 * @param {Comfy.GraphNode} node
 * @param {number} index
 */
function linkInto(node, index) {
  if (index < 0 || !node.graph) return null;
  return LiteGraph.LGraphNode.prototype.getInputLink.call(node, index);
}

/**
 * @param {Comfy.GraphNode} node
 * @param {number} index
 * @param {Comfy.GraphNode[]} hosts
 * @param {number} steps
 * @returns {Origin | null}
 */
function originOfInput(node, index, hosts, steps) {
  const link = linkInto(node, index);
  return node.graph && link && originOfLink(node.graph, link, hosts, steps + 1);
}

/**
 * @param {Comfy.Graph} graph
 * @param {Comfy.Link} link
 * @param {Comfy.GraphNode[]} hosts
 * @param {number} steps
 * @returns {Origin | null}
 */
function originOfLink(graph, link, hosts, steps) {
  if (steps > MOST_STEPS) return null;
  if (isFromBoundary(graph, link)) {
    const host = hosts.at(-1) ?? hostOf(graph);
    return host && originOfInput(host, link.origin_slot, hosts.slice(0, -1), steps);
  }
  const node = graph.getNodeById(link.origin_id);
  if (!node || node.mode === MUTED) return null;
  const passed = inputPassedOn(node, link.origin_slot);
  if (passed !== null) return originOfInput(node, passed, hosts, steps);
  if (!node.subgraph) return { node, slot: link.origin_slot, hosts };
  const inner = node.resolveSubgraphOutputLink(link.origin_slot)?.link;
  return inner ? originOfLink(node.subgraph, inner, [...hosts, node], steps + 1) : null;
}

/**
 * Whether a link comes from outside of its subgraph.
 * @param {Comfy.Graph} graph
 * @param {Comfy.Link} link
 */
function isFromBoundary(graph, link) {
  return graph.inputNode !== undefined && String(link.origin_id) === String(graph.inputNode.id);
}

/**
 * A subgraph node that shows this graph; where there are several, any.
 * @param {Comfy.Graph} subgraph
 */
function hostOf(subgraph) {
  const { rootGraph } = subgraph;
  const graphs = [rootGraph, ...rootGraph.subgraphs.values()];
  return graphs.flatMap((graph) => graph.nodes).find((node) => node.subgraph === subgraph) ?? null;
}

/**
 * The index of the input whose value an output repeats, or null where the node makes a value of its own.
 * @param {Comfy.GraphNode} node
 * @param {number} slot
 */
function inputPassedOn(node, slot) {
  if (node.type === "Reroute") return 0;
  if (node.mode !== BYPASSED) return null;
  const { type } = node.outputs[slot];
  if (node.inputs[slot]?.type === type) return slot;
  return node.inputs.findIndex((input) => input.type === type);
}

/**
 * A widget's value, or what its input is linked to: a primitive, or the widget of a subgraph node around it.
 * @param {Comfy.GraphNode} node
 * @param {string} name
 * @param {Comfy.GraphNode[]} hosts
 * @returns {unknown}
 */
function valueOfWidget(node, name, hosts) {
  const index = node.inputs.findIndex((input) => input.widget?.name === name);
  const link = linkInto(node, index);
  if (!node.graph || !link) return node.widgets?.find((widget) => widget.name === name)?.value;
  const origin = originOfLink(node.graph, link, hosts, 0);
  if (origin) return origin.node.widgets?.[0]?.value;
  return isFromBoundary(node.graph, link) ? valueOfBoundary(node.graph, link, hosts) : undefined;
}

/**
 * @param {Comfy.Graph} graph
 * @param {Comfy.Link} link
 * @param {Comfy.GraphNode[]} hosts
 * @returns {unknown}
 */
function valueOfBoundary(graph, link, hosts) {
  const host = hosts.at(-1) ?? hostOf(graph);
  const input = host?.inputs[link.origin_slot];
  return host && input && valueOfWidget(host, input.widget?.name ?? input.name, hosts.slice(0, -1));
}
