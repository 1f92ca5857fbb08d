import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { watchInputs } from "../node_inputs.js";
import { keyOf } from "../node_key.js";

const LOADERS = new Set(["LoadImage", "LoadImageMask", "LoadImageOutput"]);
const WIDGETS = ["image", "channel"]; // of a loader

/** Return the node that gives an input, also over Reroutes; null if there is none. */
function originOf(node, input) {
    const slot = node.findInputSlot(input);
    const origin = slot < 0 ? null : node.getInputNode(slot);
    return origin?.type === "Reroute" ? originOf(origin, origin.inputs[0].name) : origin;
}

const valueOf = (node, name) => node.widgets?.find((widget) => widget.name === name)?.value;

/** Return what a loader loads in the words of /view, as "folder/name.png [output]" says it. */
function loadedBy(loader) {
    const [, path, type = "input"] = /^(.*?)(?: \[(\w+)\])?$/.exec(String(valueOf(loader, "image") ?? ""));
    const cut = path.lastIndexOf("/");
    return path ? { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(0, cut)), type } : null;
}

/** Return a file with its address and the channel that a mask is; null without one. */
const fileOf = (file, channel = "red") =>
    (file ? { url: api.apiURL(`/view?${new URLSearchParams(file)}`), channel } : null);

/** The file of the picture, or of the mask, that comes into an input: as far as it is known without a run. */
export class Source {
    /** @type {{url: string, channel: string} | null} */
    file = null;

    /**
     * @param {object} node
     * @param {string} input
     * @param {() => void} changed called when it is another file
     */
    constructor(node, input, changed) {
        Object.assign(this, { node, input, changed });
        this.watched = new WeakSet();
    }

    /** Look again: after a change of links, and after a run. */
    refresh() {
        if (!this.node.graph) return; // removed meanwhile
        const origin = originOf(this.node, this.input);
        const isLoader = LOADERS.has(origin?.type);
        if (isLoader && !this.watched.has(origin)) {
            this.watched.add(origin);
            watchInputs(origin, WIDGETS, () => this.refresh());
        }
        const file = isLoader ? fileOf(loadedBy(origin), valueOf(origin, "channel") ?? "alpha")
            : origin && fileOf(this.#shownByRun(origin));
        if (file?.url === this.file?.url && file?.channel === this.file?.channel) return;
        this.file = file;
        this.changed();
    }

    /** Return the file of the last run: of the node that gives the input, or as this node had it. */
    #shownByRun(origin) {
        const own = app.nodeOutputs[keyOf(this.node)]?.[`wan22_${this.input}`]?.[0];
        const previewed = app.nodeOutputs[keyOf(origin)]?.images?.[0];
        return this.input === "mask" ? own ?? previewed : previewed ?? own; // a preview may be of another output
    }
}

/** Load a picture. Returns null when there is none under this address. */
export async function loadPicture(url) {
    const image = new Image();
    image.src = url;
    await image.decode().catch(() => null);
    return image.naturalWidth ? image : null;
}
