import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { watchInputs } from "../node_inputs.js";

/** Nodes that hand their first input on as it is. */
const PASSING = new Set(["Reroute"]);
const LOADERS = new Set(["LoadImage", "LoadImageMask", "LoadImageOutput"]);

/** Return the key of a node in app.nodeOutputs. */
export const keyOf = (node) => (node.graph.isRootGraph ? String(node.id) : `${node.graph.id}:${node.id}`);

/** Return the node that gives an input, and the number of its output; null if there is none. */
function originOf(node, input) {
    const slot = node.findInputSlot(input);
    const origin = slot < 0 ? null : node.getInputNode(slot);
    if (!origin) return null;
    if (PASSING.has(origin.type)) return originOf(origin, origin.inputs[0]?.name);
    return { node: origin, slot: node.getInputLink(slot).origin_slot };
}

/** Return what a loader loads as /view names it: "folder/name.png [output]" has its parts. */
function fileOf(loader) {
    const value = loader.widgets?.find(({ name }) => name === "image")?.value;
    const [, path, type = "input"] = /^(.*?)(?: \[(\w+)\])?$/.exec(typeof value === "string" ? value : "");
    const cut = path.lastIndexOf("/");
    return path ? { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(0, cut)), type } : null;
}

/** The picture or mask that comes into an input of a node, as far as it is known before a run. */
export class Source {
    /**
     * @param {object} node
     * @param {string} input
     * @param {(file: {url: string, node: object, slot: number} | null) => void} changed called when it is another one
     */
    constructor(node, input, changed) {
        Object.assign(this, { node, input, changed });
        this.key = undefined;
        this.watched = new WeakSet();
    }

    /** Look again: after a change of links, and after a run. */
    refresh() {
        const origin = originOf(this.node, this.input);
        if (origin && LOADERS.has(origin.node.type) && !this.watched.has(origin.node)) {
            this.watched.add(origin.node);
            watchInputs(origin.node, ["image", "channel"], () => this.refresh());
        }
        const file = origin && (LOADERS.has(origin.node.type) ? fileOf(origin.node)
            : app.nodeOutputs[keyOf(origin.node)]?.images?.[0]);
        const url = file && api.apiURL(`/view?${new URLSearchParams(file)}`);
        const channel = origin?.node.widgets?.find(({ name }) => name === "channel")?.value ?? "alpha";
        const key = file && [url, channel, origin.slot].join();
        if (key === this.key) return;
        this.key = key;
        this.changed(file && { url, channel, isLoader: LOADERS.has(origin.node.type) });
    }
}

/** Load a picture. Returns null when there is none under this address. */
export async function loadPicture(url) {
    const image = new Image();
    image.src = url;
    await image.decode().catch(() => null);
    return image.naturalWidth ? image : null;
}
