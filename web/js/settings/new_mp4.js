import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";

const NODES = ["Wan22SaveMP4", "Wan22DecodeToMP4", "Wan22LongClip", "Wan22JoinClips", "Wan22ClipGrid"];
/** Setting -> the widget whose default it is, on a node that the user adds. */
const WIDGETS = {
    "Wan22.NewMp4.Quality": "crf",
    "Wan22.NewMp4.Preset": "preset",
    "Wan22.NewMp4.Metadata": "metadata",
    "Wan22.NewMp4.Mark": "mark_ai_generated",
};
/** The node's inputs; the settings take limits, choices and defaults from them. */
const INPUTS = await api.fetchApi(`/object_info/${NODES[0]}`).then((answer) => answer.json())
    .then((nodes) => nodes[NODES[0]].input.optional).catch(() => ({}));
const TYPES = { FLOAT: "slider", COMBO: "combo", BOOLEAN: "boolean" };
let promptsLoading = 0;

/** Kept among ComfyUI's own settings: they are only what a new node starts with. */
export const NEW_MP4 = Object.entries(WIDGETS).filter(([, widget]) => INPUTS[widget]).map(([id, widget]) => {
    const [type, { default: defaultValue, min, max, step, options }] = INPUTS[widget];
    return { id, type: TYPES[type], defaultValue, ...(options ? { options } : { attrs: { min, max, step } }) };
});

/**
 * Count the prompts in API format that are being loaded: their nodes are created like those that the user adds. Newer
 * frontends queue a load and return a promise of its end; before them it was done when the call returned.
 */
export function watchLoading() {
    const load = app.loadApiJson;
    app.loadApiJson = function (...given) {
        const ended = () => promptsLoading--;
        let loading;
        promptsLoading++;
        try {
            loading = load.apply(this, given);
        } finally {
            if (typeof loading?.then === "function") loading.then(ended, ended);
            else ended();
        }
        return loading;
    };
}

/** Set the widgets of a node that the user adds to the settings; nodes of a workflow keep their values. */
export function setDefaults(node) {
    if (!NODES.includes(node.comfyClass) || app.configuringGraph || promptsLoading) return;
    for (const { id } of NEW_MP4) {
        const widget = node.widgets.find((widget) => widget.name === WIDGETS[id]);
        const value = app.extensionManager.setting.get(id);
        if (widget && value !== undefined) widget.value = value;
    }
}
