import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { forwardToCanvas } from "../forward.js";
import { readInputs, watchInputs } from "../node_inputs.js";
import { request } from "../server.js";
import { addStyle } from "../style.js";
import { camera } from "./camera.js";
import { Editor } from "./editor.js";
import { keyOf, loadPicture, Source } from "./source.js";

const INPUTS = ["image", "path", "width", "height", "num_frames"];
const MARGIN = 10;
const WIDTH = 400;
/** Where a size comes from another node. */
const SIZE = { width: 832, height: 480, num_frames: 81 };

/** Node -> where its picture comes from. */
const pictures = new Map();
/** Workflow and node -> the place of its path that was changed last: undo makes every node anew. */
const places = new Map();
let presets;

function add(node) {
    presets ??= request("camera_presets").catch(() => []);
    const editor = new Editor(camera, {
        write(text) {
            const widget = node.widgets.find(({ name }) => name === "path");
            widget.value = text;
            widget.callback?.(text, app.canvas, node);
            places.set(placeOf(node), editor.place);
            node.setDirtyCanvas(true, true);
        },
        begin: () => app.canvas.emitBeforeChange(),
        end: () => app.canvas.emitAfterChange(),
    }, presets);
    const widget = node.addDOMWidget("wan22_path_editor", "wan22-camera", editor.element, {
        serialize: false,
        hideOnZoom: false,
        hideInPanel: true,
        margin: MARGIN,
        getMinHeight: () => editor.minHeight(node.size[0] - 2 * MARGIN) + 2 * MARGIN,
    });
    widget.serialize = false;
    forwardToCanvas(editor.element);
    follow(node, editor);
    const { onRemove } = widget;
    widget.onRemove = function () {
        onRemove?.call(this);
        pictures.delete(node);
        editor.release();
    };
}

const placeOf = (node) => `${app.rootGraph.id}/${keyOf(node)}`;

/** Show in the editor what the node's inputs are, now and after each change. */
function follow(node, editor) {
    let picture = null;
    let isFirst = true;
    const show = () => {
        if (isFirst) editor.place = places.get(placeOf(node)) ?? 0;
        isFirst = false;
        const { inputs, linked } = readInputs(node, INPUTS);
        const { width, height, num_frames: count } = { ...SIZE, ...inputs };
        editor.setScene({ picture: picture ?? { width, height }, aspect: width / height, count });
        editor.setText(inputs.path ?? "", linked.includes("path"));
    };
    const source = new Source(node, "image", async (file) => {
        const image = file && await loadPicture(`${file.url}&channel=rgb`);
        picture = image && { url: image.src, width: image.naturalWidth, height: image.naturalHeight };
        show();
    });
    const refresh = () => {
        show();
        source.refresh();
    };
    watchInputs(node, INPUTS, refresh);
    pictures.set(node, source);
}

const lookAgain = () => pictures.forEach((source) => source.refresh());

addStyle("camera");
api.addEventListener("executed", lookAgain);
app.registerExtension({
    name: "wan22.camera",
    nodeCreated(node) {
        if (node.comfyClass !== "Wan22CameraPath") return;
        add(node);
        node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]);
    },
    onNodeOutputsUpdated: lookAgain,
});
