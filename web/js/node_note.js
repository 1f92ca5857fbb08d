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
    const refresh = async (byUser = new Set(), loaded = false) => {
        try {
            const found = await latest(async (overtaken) => {
                const added = await more(byUser, loaded);
                if (overtaken()) return undefined;
                const given = readInputs(node, inputs);
                const body = { ...given, inputs: { ...given.inputs, ...added } };
                return { given, answer: await request(path, { method: "POST", body }) };
            });
            if (found) show(linesOf(found.answer).map((line) => unlessChanged(line, found.given)));
        } catch (error) {
            show([{ text: text("note.failed", { error: error.message }), look: "quiet" }]);
        }
    };
    // Pressed before the answer for other inputs is there, a button requests that answer instead.
    const unlessChanged = ({ button, ...line }, given) => {
        if (!button) return line;
        const isCurrent = () => JSON.stringify(readInputs(node, inputs)) === JSON.stringify(given);
        return { ...line, button: { ...button, press: () => (isCurrent() ? button.press() : refresh()) } };
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
