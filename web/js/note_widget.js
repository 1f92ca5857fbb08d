import { app } from "../../../scripts/app.js";
import { addElement } from "./element_widget.js";
import { addStyle } from "./style.js";
import { text } from "./text.js";

addStyle("note_widget");

const LINE = 16;
const FRAME = 8;
const MARGIN = 8;

/**
 * @typedef {object} Line
 * @property {string} text
 * @property {"main" | "good" | "warning" | "quiet" | ""} [look]
 * @property {string} [title] shown under the pointer
 * @property {boolean} [short] cut it to one line
 * @property {{label: string, press: () => void | Promise<void>}} [button] after the text; why its work fails is said
 */

/**
 * Add a note at the bottom of a node. It is always as high as `lines`, scrolls when there are more, and is neither in
 * the workflow nor in what Run sends.
 * @param {import("../../../scripts/app.js").LGraphNode} node
 * @param {string} name of the widget; no input may have it
 * @param {string} label for screen readers
 * @param {number} lines
 * @returns {(lines: Line[]) => void} sets the lines
 */
export function addNote(node, name, label, lines) {
    const element = document.createElement("div");
    element.className = "wan22-note";
    element.tabIndex = 0;
    element.setAttribute("role", "status");
    element.setAttribute("aria-label", label);
    const height = lines * LINE + FRAME;
    element.style.minHeight = `${height}px`;
    const whole = height + 2 * MARGIN;
    addElement(node, name, element, { margin: MARGIN, getMinHeight: () => whole, getMaxHeight: () => whole });
    // Without anything to scroll, the wheel zooms the canvas, as over the rest of the node.
    element.addEventListener("wheel", (event) => {
        const scrolls = element.scrollHeight > element.clientHeight && !event.ctrlKey;
        if (scrolls && element.contains(document.activeElement)) event.stopPropagation();
        else if (!element.closest("[data-node-id]")) app.canvas.processMouseWheel(event);
    });
    element.dataset.captureWheel = "true";
    let drawn = "";
    let current = [];
    let fault = null;
    const show = (content) => {
        current = content; // what its buttons do may differ where it looks the same
        const now = JSON.stringify(content);
        if (now === drawn) return; // an element that is made anew would lose the keyboard's focus
        drawn = now;
        element.replaceChildren(...content.map((line, n) => paragraph(line, () => press(n))));
    };
    const press = async (n) => {
        try {
            await current[n].button.press();
        } catch (error) {
            const others = current.filter((line) => line !== fault);
            fault = { text: text("note.refused", { error: error.message }), look: "warning" };
            show([fault, ...others]);
        }
    };
    return show;
}

/** @param {Line} content @param {() => void} onPress called when its button is pressed */
function paragraph(content, onPress) {
    const { look = "", title = "", short = false, button } = content;
    const line = document.createElement("p");
    line.textContent = content.text;
    if (look) line.classList.add(`wan22-note-${look}`);
    line.classList.toggle("wan22-note-short", short);
    if (title) line.title = title;
    if (button) {
        const press = document.createElement("button");
        press.type = "button";
        press.textContent = button.label;
        press.addEventListener("click", onPress);
        line.append(press);
    }
    return line;
}
