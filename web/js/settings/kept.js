import { text } from "../text.js";
import { element, field, Row } from "./row.js";

/**
 * A row for a setting that the server keeps in a file of the pack: never among ComfyUI's own settings, which whatever
 * runs on the page may change.
 * @param {import("./part.js").Part} part
 * @param {string} key of the setting, at the server
 * @param {HTMLInputElement} input
 * @param {object} how
 * @param {() => any} how.read what the input holds; null is the default
 * @param {(value: any, standard: any) => void} how.show puts a value into the input; standard: the default
 * @param {(answer: any) => string} [how.state] words to stand beside it
 */
export function keptRow(part, key, input, { read, show, state = () => "" }) {
    const row = new Row(input);
    let edited = false;
    const put = () => show(part.answer.settings[key].value, part.answer.settings[key].default);
    input.addEventListener("input", () => (edited = true));
    input.addEventListener("change", async () => {
        edited = !(await row.work(() => part.change("POST", () => ({ [key]: read() }))));
        if (!edited) put();
    });
    part.follow(row.element, (answer, fault) => {
        if (!answer) return row.lock(fault);
        const { source, variable } = answer.settings[key];
        input.disabled = source === "environment";
        row.state(input.disabled ? text("settings.from_environment", { variable }) : state(answer));
        if (!edited) put();
    });
    return row.element;
}

/** A row for a number; the default is an empty field with this placeholder. */
export function numberRow(part, key, name, placeholder, state) {
    const input = field(name, { inputMode: "decimal", placeholder });
    input.classList.add("wan22-settings-short");
    return keptRow(part, key, input, {
        read: () => typedNumber(input),
        show: (value, standard) => (input.value = value === standard ? "" : value),
        state,
    });
}

/** A row for a switch. */
export function switchRow(part, key, name) {
    const input = element("input", { type: "checkbox", className: "wan22-settings-switch", ariaLabel: name });
    input.setAttribute("role", "switch");
    return keptRow(part, key, input, { read: () => input.checked, show: (value) => (input.checked = value) });
}

/** What was typed as a number, null for nothing; what is no number as it is, for the server to refuse. */
export function typedNumber(input) {
    const typed = input.value.trim();
    if (!typed) return null;
    return Number.isFinite(Number(typed)) ? Number(typed) : typed;
}
