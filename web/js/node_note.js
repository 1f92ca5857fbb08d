import { addNote } from "./note_widget.js";
import { latestOnly, readInputs, watchInputs } from "./node_inputs.js";
import { request } from "./server.js";
import { text } from "./text.js";

/**
 * Add a note to a node that shows the answer of a route for the node's inputs, updated with every change.
 * @param {object} node
 * @param {object} feature
 * @param {string} feature.name of its texts and of its widget
 * @param {string} feature.path of the route
 * @param {string[]} feature.inputs names
 * @param {number} feature.lines
 * @param {(answer: any, refresh: () => void) => import("./note_widget.js").Line[]} feature.describe returns the
 *     answer as lines; `refresh` requests it again. A button of theirs acts as long as the inputs are those asked about
 * @param {(byUser: Set<string>, loaded: boolean) => Promise<object>} [feature.more] inputs that have no widget
 */
export function addNodeNote(node, { name, path, inputs, lines, describe, more = async () => ({}) }) {
    const show = addNote(node, `wan22_${name}`, text(`${name}.label`), lines);
    const latest = latestOnly();
    let asked = ""; // the inputs of the newest request
    const refresh = async (byUser = new Set(), loaded = false) => {
        try {
            const answer = await latest(async (overtaken) => {
                const added = await more(byUser, loaded);
                if (overtaken()) return undefined;
                const given = readInputs(node, inputs);
                asked = JSON.stringify(given);
                return request(path, { method: "POST", body: { ...given, inputs: { ...given.inputs, ...added } } });
            });
            if (answer) show(linesOf(answer).map(unlessChanged));
        } catch (error) {
            show([{ text: text("note.failed", { error: error.message }), look: "quiet" }]);
        }
    };
    // Pressed in the moment before the answer for other inputs, a button shows that answer instead.
    const unlessChanged = (line) => line.button
        ? { ...line, button: { ...line.button, press: () => (JSON.stringify(readInputs(node, inputs)) === asked ? line.button.press() : refresh()) } }
        : line;
    const linesOf = (answer) => {
        if (answer.fault) return [{ text: answer.fault, look: "warning" }];
        if (answer.unknown?.length) {
            return [{ text: text("note.unknown", { names: answer.unknown.join(", ") }), look: "quiet" }];
        }
        return describe(answer, () => refresh());
    };
    watchInputs(node, inputs, refresh);
}
