import { app } from "../../../../scripts/app.js";

/** Names of inputs that hold a seed. */
const SEEDS = ["seed", "noise_seed"];

/**
 * An input of the open workflow that can be varied. key: the same for the same input alone, and while it takes the same
 * kind of values. kind: "seeds", "lines" of text, "numbers", "choices".
 * @typedef {{key: string, node: number, name: string, index: number, label: string, title: string,
 *   kind: string, value: any, choices: any[]}} Axis
 */

/** One change of a variant. @typedef {{node: number, name: string, index: number, label: string, value: any}} Change */

/**
 * Return the inputs that can be varied: those with a widget that Run sends.
 * @param {Record<string, {inputs: Record<string, any>}>} output the graph in API format
 * @returns {Axis[]}
 */
export function findAxes(output) {
    return app.graph.nodes.flatMap((node) => (node.widgets ?? []).map((widget, index) => {
        const sent = output[node.id]?.inputs[widget.name];
        const kind = kindOf(widget, sent);
        const choices = kind === "choices" ? choicesOf(widget, node, sent) : [];
        const { name } = widget;
        const key = [app.graph.id, node.type, node.id, name, kind].join();
        return kind && { key, node: node.id, name, index, label: widget.label ?? name, title: node.title, kind,
            value: sent, choices };
    })).filter(Boolean);
}

/** Return "" for an input that cannot be varied: one that is linked, or not sent. */
function kindOf(widget, sent) {
    if (Array.isArray(sent)) return ""; // a link
    if (typeof sent === "number") return SEEDS.includes(widget.name) ? "seeds" : "numbers";
    if (typeof sent === "boolean" || widget.type === "combo") return sent === undefined ? "" : "choices";
    return typeof sent === "string" ? "lines" : "";
}

function choicesOf(widget, node, sent) {
    if (typeof sent === "boolean") return [false, true];
    const values = widget.options?.values ?? [];
    return typeof values === "function" ? values(widget, node) : Object.values(values);
}

/**
 * Return the values that a text stands for.
 * @param {Axis} axis
 * @param {string} written a number of seeds; lines; numbers with spaces or commas between them
 * @returns {any[]} none when it stands for nothing
 */
export function valuesOf(axis, written) {
    if (axis.kind === "lines") return written.split("\n").map((line) => line.trim()).filter(Boolean);
    const numbers = written.split(/[\s,;]+/).filter(Boolean).map(Number);
    if (numbers.some((number) => !Number.isFinite(number))) return [];
    if (axis.kind === "numbers") return numbers;
    const count = Math.min(Math.max(0, Math.floor(numbers[0] ?? 0)), 1000);
    return Array.from({ length: count }, (_, n) => axis.value + n);
}

/**
 * Return every combination of the axes' values; the last axis changes fastest.
 * @param {{axis: Axis, values: any[]}[]} chosen
 * @returns {Change[][]}
 */
export function combinations(chosen) {
    return chosen.reduce((rows, { axis: { node, name, index, label }, values }) =>
        rows.flatMap((row) => values.map((value) => [...row, { node, name, index, label, value }])), [[]]);
}

/**
 * Return a workflow with changes, as Run would send it with those values on the canvas.
 * @param {{output: object, workflow: object}} base
 * @param {Change[]} changes
 */
export function changed(base, changes) {
    const { output, workflow } = structuredClone(base);
    for (const { node, name, index, value } of changes) {
        output[node].inputs[name] = value;
        const drawn = workflow.nodes.find((one) => String(one.id) === String(node)); // loaded ones may have either
        if (drawn?.widgets_values) drawn.widgets_values[index in drawn.widgets_values ? index : name] = value;
    }
    return { output, workflow };
}
