import { app } from "../../../scripts/app.js";
import { addElement } from "./element_widget.js";
import { addStyle } from "./style.js";

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
 * @property {{label: string, press: () => void}} [button] after the text
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
    let shown = "";
    return (content) => {
        const now = JSON.stringify(content);
        if (now === shown) return;
        shown = now;
        element.replaceChildren(...content.map(paragraph));
    };
}

/** @param {Line} line */
function paragraph({ text, look = "", title = "", short = false, button }) {
    const line = document.createElement("p");
    line.textContent = text;
    if (look) line.classList.add(`wan22-note-${look}`);
    line.classList.toggle("wan22-note-short", short);
    if (title) line.title = title;
    if (button) {
        const press = document.createElement("button");
        press.type = "button";
        press.textContent = button.label;
        press.addEventListener("click", button.press);
        line.append(press);
    }
    return line;
}
