import { addNote } from "./note_widget.js";
import { lastOnly, readInputs, watchInputs } from "./node_inputs.js";
import { ask } from "./server.js";
import { text } from "./text.js";

/**
 * A note on a node that says what a route of the pack finds in its inputs, anew with every change.
 * @param {object} node
 * @param {object} feature
 * @param {string} feature.name of its texts and of its widget, which nobody sees
 * @param {string} feature.path of the route
 * @param {string[]} feature.inputs names
 * @param {number} feature.lines
 * @param {(answer: any, again: () => void) => import("./note_widget.js").Line[]} feature.describe the answer in
 *     words; `again` asks once more
 * @param {(byUser: Set<string>, loaded: boolean) => Promise<object>} [feature.more] inputs that are no widget's
 */
export function addNodeNote(node, { name, path, inputs, lines, describe, more = async () => ({}) }) {
    const show = addNote(node, `wan22_${name}`, text(`${name}.label`), lines);
    const latest = lastOnly();
    const refresh = async (byUser = new Set(), loaded = false) => {
        try {
            const answer = await latest(async (overtaken) => {
                const added = await more(byUser, loaded);
                if (overtaken()) return undefined;
                const given = readInputs(node, inputs);
                return ask(path, { method: "POST", body: { ...given, inputs: { ...given.inputs, ...added } } });
            });
            if (answer) show(linesOf(answer));
        } catch (error) {
            show([{ text: text("note.failed", { error: error.message }), look: "quiet" }]);
        }
    };
    const linesOf = (answer) => {
        if (answer.fault) return [{ text: answer.fault, look: "warning" }];
        if (answer.unknown?.length) {
            return [{ text: text("note.unknown", { names: answer.unknown.join(", ") }), look: "quiet" }];
        }
        return describe(answer, () => refresh());
    };
    watchInputs(node, inputs, refresh);
}
