import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";

const NODES = ["Wan22SaveMP4", "Wan22DecodeToMP4"];
/** Setting -> the widget whose first value it is, of a node that the user adds. */
const WIDGETS = {
    "Wan22.NewMp4.Quality": "crf",
    "Wan22.NewMp4.Preset": "preset",
    "Wan22.NewMp4.Metadata": "metadata",
    "Wan22.NewMp4.Mark": "mark_ai_generated",
};
/** The node's inputs, of which the settings have their limits, choices and defaults. */
const INPUTS = await api.fetchApi(`/object_info/${NODES[0]}`).then((answer) => answer.json())
    .then((nodes) => nodes[NODES[0]].input.optional).catch(() => ({}));
const TYPES = { FLOAT: "slider", COMBO: "combo", BOOLEAN: "boolean" };
let isLoading = false;

/** ComfyUI settings, kept by ComfyUI: they are no more than what a new node starts with. */
export const NEW_MP4 = Object.entries(WIDGETS).filter(([, widget]) => INPUTS[widget]).map(([id, widget]) => {
    const [type, { default: defaultValue, min, max, step, options }] = INPUTS[widget];
    return { id, type: TYPES[type], defaultValue, ...(options ? { options } : { attrs: { min, max, step } }) };
});

/** Tell a prompt in API format, which is loaded, from nodes that the user adds: only the frontend knows which it does. */
export function watchLoading() {
    const load = app.loadApiJson;
    app.loadApiJson = function (...given) {
        isLoading = true;
        try {
            return load.apply(this, given);
        } finally {
            isLoading = false;
        }
    };
}

/** Give a node that the user adds the values of the settings; a workflow's nodes keep their own. */
export function startAsSettled(node) {
    if (!NODES.includes(node.comfyClass) || app.configuringGraph || isLoading) return;
    for (const { id } of NEW_MP4) {
        const widget = node.widgets.find((widget) => widget.name === WIDGETS[id]);
        const value = app.extensionManager.setting.get(id);
        if (widget && value !== undefined) widget.value = value;
    }
}
