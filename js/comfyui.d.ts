/** What this folder uses of ComfyUI's front end, for the type check alone. Optional: what not every version has. */

declare namespace Comfy {
  type Id = number | string;

  interface App {
    canvas: Canvas;
    nodeOutputs?: Record<string, NodeOutput | undefined>;
    extensionManager: { workflow: { activeWorkflow?: { changeTracker?: ChangeTracker } | null } };
    registerExtension(extension: { name: string; setup?(): void; nodeCreated?(node: GraphNode): void }): void;
  }

  interface Api extends EventTarget {
    apiURL(route: string): string;
  }

  interface Canvas {
    graph?: Graph | null;
    ds: { scale: number };
    linkConnector: {
      isConnecting: boolean;
      state: { connectingTo?: "input" | "output" };
      renderLinks: { fromSlot: Slot }[];
    };
    onDrawForeground?: (this: Canvas, ...drawing: unknown[]) => void;
    setDirty(foreground: boolean, background: boolean): void;
    processMouseWheel(event: WheelEvent): void;
    processMouseDown(event: PointerEvent): void;
    processMouseMove(event: PointerEvent): void;
    processMouseUp(event: PointerEvent): void;
    processKey(event: KeyboardEvent): void;
  }

  /** Newer ones capture, older ones check. */
  interface ChangeTracker {
    captureCanvasState?(): void;
    checkState(): void;
  }

  interface Graph {
    id: string;
    nodes: GraphNode[];
    rootGraph: RootGraph;
    /** Where a subgraph's inputs come in; a root graph has none. */
    inputNode?: { id: Id };
    getNodeById(id: Id): GraphNode | null | undefined;
    setDirtyCanvas(foreground: boolean, background: boolean): void;
  }

  interface RootGraph extends Graph {
    subgraphs: Map<string, Graph>;
  }

  interface GraphNode {
    constructor: { nodeData?: NodeDefinition };
    id: Id;
    type: string;
    comfyClass: string;
    mode: number;
    /** Null once the node is removed. */
    graph: Graph | null;
    /** What a subgraph node shows. */
    subgraph?: Graph;
    inputs: Slot[];
    outputs: Slot[];
    widgets?: Widget[];
    imgs?: { src: string }[];
    size: [number, number];
    onExecuted?: (this: GraphNode, output?: NodeOutput, ...rest: unknown[]) => void;
    setSize(size: [number, number]): void;
    setDirtyCanvas(foreground: boolean, background: boolean): void;
    addDOMWidget(name: string, type: string, element: HTMLElement, options: DomWidgetOptions): Widget;
    getInputLink(index: number): Link | null;
    resolveSubgraphOutputLink(slot: number): { link?: Link } | undefined;
  }

  interface NodeDefinition {
    input?: { required?: Record<string, [unknown, { image_upload?: boolean }?] | undefined> };
  }

  interface Slot {
    name: string;
    type: string;
    widget?: { name: string };
  }

  interface Link {
    origin_id: Id;
    origin_slot: number;
  }

  interface Widget {
    name: string;
    value: unknown;
    options: { hidden?: boolean };
    hidden?: boolean;
    serialize?: boolean;
    y: number;
    computeLayoutSize?(): { minHeight: number; maxHeight: number; minWidth: number };
  }

  interface DomWidgetOptions {
    getMinHeight(): number;
    getValue(): string;
    hideOnZoom: boolean;
    hideInPanel: boolean;
    serialize: boolean;
  }

  /** A file as the route /view takes it. */
  interface ViewedFile {
    filename: string;
    subfolder?: string;
    type?: string;
    channel?: string;
  }

  interface NodeOutput {
    images?: ViewedFile[];
    picker_image?: ViewedFile[];
  }
}

declare const LiteGraph: {
  vueNodesMode?: boolean;
  LGraphNode: { prototype: Comfy.GraphNode };
};

declare var __COMFYUI_FRONTEND_VERSION__: string | undefined;

declare module "*/scripts/app.js" {
  export const app: Comfy.App;
}

declare module "*/scripts/api.js" {
  export const api: Comfy.Api;
}
