import { text } from "../text.js";
import { element, field, Row } from "./row.js";

/**
 * A row for a setting that the server saves in a file of the pack: never among ComfyUI's own settings, which any script
 * on the page may change.
 * @param {import("./resource.js").Resource} resource
 * @param {string} key of the setting in the resource
 * @param {HTMLInputElement} input
 * @param {object} how
 * @param {() => any} how.read returns the input's value; null for the default
 * @param {(value: any, standard: any) => void} how.show puts a value into the input; standard: the default
 * @param {(state: any) => string} [how.status] text beside it
 * @param {() => void} [how.after] called once a change is saved
 * @param {() => string} [how.entry] what the input is for, where that can change: what was typed is for nothing else
 */
export function savedRow(resource, key, input, { read, show, status = () => "", after = () => {}, entry = () => "" }) {
    const row = new Row(input);
    let edited = false;
    let shown = entry();
    const put = () => show(resource.state.settings[key].value, resource.state.settings[key].default);
    input.addEventListener("input", () => (edited = true));
    input.addEventListener("change", async () => {
        const [body, typedFor] = [{ [key]: read() }, entry()]; // as they are now, not when its turn comes
        const isSaved = await row.work(() => resource.change("POST", () => body));
        edited = !isSaved && typedFor === entry();
        if (!isSaved) return;
        put();
        after();
    });
    resource.subscribe(row.element, (state, fault) => {
        if (!state) return row.lock(fault);
        const { source, variable } = state.settings[key];
        input.disabled = source === "environment";
        if (entry() !== shown) [shown, edited] = [entry(), false];
        row.setStatus(input.disabled ? text("settings.from_environment", { variable }) : status(state));
        if (!edited) put();
    });
    return row.element;
}

/** A row for a number; the default is an empty field that says it, in a word where there is one. */
export function numberRow(resource, key, name, word = "", status) {
    const input = field(name, { inputMode: "decimal" });
    input.classList.add("wan22-settings-short");
    return savedRow(resource, key, input, {
        read: () => typedNumber(input),
        show: (value, standard) => {
            input.value = value === standard ? "" : value;
            input.placeholder = word || standard;
        },
        status,
    });
}

/** A row for a switch. */
export function switchRow(resource, key, name) {
    const input = element("input", { type: "checkbox", className: "wan22-settings-switch", ariaLabel: name });
    input.setAttribute("role", "switch");
    return savedRow(resource, key, input, { read: () => input.checked, show: (value) => (input.checked = value) });
}

/** Return the typed number, null for an empty field; other text unchanged, for the server to refuse. */
export function typedNumber(input) {
    const typed = input.value.trim();
    if (!typed) return null;
    return Number.isFinite(Number(typed)) ? Number(typed) : typed;
}
