import { app } from "../../../scripts/app.js";
import { addNodeNote } from "./node_note.js";
import { text } from "./text.js";

const SAMPLERS = ["Wan22Sampler", "Wan22BridgeSampler"];
const INPUTS = ["num_inference_steps", "guidance_scale", "guidance_scale_2", "scheduler", "shift", "boundary",
    "denoise", "stage", "sigma_schedule", "sigmas"];

const span = ([first, last]) => (first === last ? `${first}` : `${first}-${last}`);

function describe({ high, low, run, warning }) {
    const split = high && low ? text("steps.both", { high: span(high), low: span(low) })
        : high ? text("steps.high", { high: span(high) }) : text("steps.low", { low: span(low) });
    const part = run ? text("steps.run", { run: span(run) }) : "";
    return [{ text: split + part, look: "main" }, ...(warning ? [{ text: warning, look: "warning" }] : [])];
}

app.registerExtension({
    name: "wan22.steps",
    nodeCreated(node) {
        if (!SAMPLERS.includes(node.comfyClass)) return;
        addNodeNote(node, { name: "steps", path: "steps", inputs: INPUTS, lines: 4, describe });
    },
});
