import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { addElement } from "../element_widget.js";
import { forwardToCanvas } from "../forward.js";
import { latestOnly, readInputs, watchInputs } from "../node_inputs.js";
import { lastingKeyOf } from "../node_key.js";
import { request } from "../server.js";
import { addStyle } from "../style.js";
import { camera } from "./camera.js";
import { Editor } from "./editor.js";
import { cutOut } from "./mask.js";
import { object } from "./object.js";
import { loadPicture, Source } from "./source.js";

/** Node -> what moves on it. */
const NODES = { Wan22CameraPath: camera, Wan22MoveObject: object };
const INPUTS = ["image", "mask", "path", "resolution", "resolution.width", "resolution.height", "num_frames"];
const MARGIN = 10;
/** Least height of the editor, as in camera.css: a size that changed later would be a step of undo. */
const HEIGHT = 460;
/** Width of a new node, so that a picture can be drawn on. */
const WIDTH = 400;
/** Frames of a clip whose length comes from another node. */
const FRAMES = 81;

/** Node -> where its picture and its mask come from. */
const sources = new Map();
/** Workflow and node -> the place of its path that was changed last: undo makes every node anew. */
const places = new Map();
let presets;

function add(node, moving) {
    presets ??= request("camera_presets").catch(() => []);
    const editor = new Editor(moving, {
        write(text) {
            const widget = node.widgets.find(({ name }) => name === "path");
            widget.value = text;
            widget.callback?.(text, app.canvas, node);
            places.set(lastingKeyOf(node), editor.place);
            node.setDirtyCanvas(true, true);
        },
        begin: () => app.canvas.emitBeforeChange(),
        end: () => app.canvas.emitAfterChange(),
    }, moving === camera ? presets : Promise.resolve([]));
    const widget = addElement(node, "wan22_path_editor", editor.element, {
        hideOnZoom: false,
        hideInPanel: true,
        margin: MARGIN,
        getMinHeight: () => HEIGHT + 2 * MARGIN,
    });
    const { onRemove } = widget;
    widget.onRemove = function () {
        onRemove?.call(this);
        sources.delete(node);
        editor.release();
    };
    forwardToCanvas(editor.element);
    follow(node, editor, () => places.get(lastingKeyOf(node)) ?? 0);
}

/** Give a node that is loaded the size that it had: its choices, when they are set, take it down to the least. */
function keepSize(node) {
    const { onConfigure } = node;
    node.onConfigure = function (saved, ...more) {
        onConfigure?.call(this, saved, ...more);
        if (saved.size) this.setSize([saved.size[0], Math.max(saved.size[1], this.computeSize()[1])]);
    };
}

/** Show in the editor what the node's inputs are, now and after each change. firstPlace: of the path, to show first. */
function follow(node, editor, firstPlace) {
    let picture = null;
    let isFirst = true;
    const show = () => {
        if (!node.graph) return; // removed meanwhile
        if (isFirst) editor.place = firstPlace();
        isFirst = false;
        const { inputs, linked } = readInputs(node, INPUTS);
        const [width, height] = sizeOf(inputs);
        const count = inputs.num_frames ?? FRAMES;
        editor.setScene({ picture: picture ?? { width, height }, aspect: width / height, count });
        editor.setText(inputs.path ?? "", linked.includes("path"));
    };
    const latest = latestOnly();
    const load = async () => {
        const found = await latest(() => pictureOf(image.file, mask.file));
        if (found === undefined) return;
        picture = found;
        show();
    };
    const image = new Source(node, "image", load);
    const mask = new Source(node, "mask", load);
    sources.set(node, [image, mask]);
    watchInputs(node, INPUTS, () => {
        show();
        lookAgain();
    });
}

const lookAgain = () => [...sources.values()].flat().forEach((source) => source.refresh());

/** Return width and height of a clip: a resolution has them in its name, or as inputs of its own. */
function sizeOf(inputs) {
    const named = /(\d+)x(\d+)/.exec(inputs.resolution ?? "832x480");
    return named ? [Number(named[1]), Number(named[2])]
        : [inputs["resolution.width"] || 16, inputs["resolution.height"] || 9];
}

/**
 * Return the address of a picture as Load Image gives it: with the colours of transparent places, which a canvas would
 * lose. A JPEG has none, and ComfyUI's copy of it would not be turned as its EXIF says.
 */
function opaque(url) {
    return /\.jpe?g$/i.test(new URL(url, location).searchParams.get("filename")) ? url : `${url}&channel=rgb`;
}

/** Load a picture, and cut out of it what a mask covers. Returns null without a picture. */
async function pictureOf(file, mask) {
    const picture = file && await loadPicture(opaque(file.url));
    if (!picture) return null;
    const drawn = mask && await loadPicture(mask.url);
    return { url: picture.src, width: picture.naturalWidth, height: picture.naturalHeight,
        object: drawn ? cutOut(picture, drawn, mask.channel) : null };
}

addStyle("controls");
addStyle("camera");
api.addEventListener("executed", lookAgain);
app.registerExtension({
    name: "wan22.camera",
    nodeCreated(node) {
        const moving = NODES[node.comfyClass];
        if (!moving) return;
        add(node, moving);
        node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]]);
        keepSize(node);
    },
    onNodeOutputsUpdated: lookAgain,
});
