import { app } from "../../../../scripts/app.js";
import { request } from "../server.js";
import { text } from "../text.js";
import { onSecondClick } from "./keys.js";
import { numberRow, savedRow, switchRow } from "./saved_row.js";
import { SERVING } from "./resource.js";
import { button, element, field, Row } from "./row.js";

/** Whether requests of other programs are served. */
export const apiOn = (name) => switchRow(SERVING, "on", name);

/** How many clips and uploads a key may ask for in a minute. */
export const apiPerMinute = (name) => numberRow(SERVING, "per_minute", name);

/** How many clips of a key may wait or run at one time. */
export const apiQueue = (name) => numberRow(SERVING, "queue", name);

/** For how many days clips and uploads are kept. */
export const apiRetention = (name) => numberRow(SERVING, "retention_days", name);

/** The model that is used when a request names none. */
export function apiModel(name) {
    const chosen = element("select", { className: "wan22-settings-field", ariaLabel: name });
    return savedRow(SERVING, "model", chosen, {
        read: () => chosen.value || null,
        show: (value) => {
            const names = [...new Set([...SERVING.state.models, value])].filter(Boolean);
            chosen.replaceChildren(element("option", { value: "", textContent: text("settings.automatic") }),
                ...names.map((model) => element("option", { value: model, textContent: model })));
            chosen.value = value;
        },
    });
}

/** A row that makes a key and shows it once, and revokes one. */
export function apiKeys(name) {
    const made = element("div", { className: "wan22-settings-made" });
    const { row, chosen } = namedRow(name, {
        add: "settings.make_key",
        remove: "settings.revoke",
        placeholder: "settings.key_name",
        names: (state) => state.keys.filter((key) => key.created !== null).map((key) => key.name),
        status: (state) => text(state.keys.length ? "settings.keys" : "settings.no_keys", { count: state.keys.length }),
        onAdd: async (key) => {
            const found = await request("serving/keys", { method: "POST", body: { name: key } });
            made.replaceChildren(once(text("settings.key_once"), found.key),
                once(text("settings.secret_once"), found.callback_secret));
        },
        onRemove: (key) => request("serving/keys", { method: "DELETE", body: { name: key } }),
    });
    chosen.addEventListener("change", () => made.replaceChildren());
    row.element.append(made);
    return row.element;
}

/** A row that saves the open workflow as a model of the API, and removes one. */
export function savedModels(name) {
    return namedRow(name, {
        add: "settings.save_workflow",
        remove: "settings.remove",
        placeholder: "settings.model_name",
        names: (state) => state.saved_models,
        status: (state) => state.model_faults.join(" "),
        onAdd: async (model) => {
            const { output } = await app.graphToPrompt();
            await request("serving/models", { method: "POST", body: { name: model, graph: output } });
        },
        onRemove: (model) => request("serving/models", { method: "DELETE", body: { name: model } }),
    }).row.element;
}

/** A row for named things: a field and a button add one; a list and a button remove one. */
function namedRow(name, { add, remove, placeholder, names, status, onAdd, onRemove }) {
    const input = field(`${name}: ${text(placeholder)}`, { placeholder: text(placeholder) });
    const adding = button(text(add), { ariaLabel: `${text(add)}: ${name}` });
    const chosen = element("select", { className: "wan22-settings-field", ariaLabel: name });
    const removing = button(text(remove), { ariaLabel: `${text(remove)}: ${name}` });
    const row = new Row(input, adding, chosen, removing);
    const ready = () => {
        adding.disabled = !input.value.trim();
        removing.disabled = !chosen.value;
    };
    const work = (task) => row.work(async () => {
        await task();
        await SERVING.reload();
    }, "");
    const put = async () => {
        if (!adding.disabled && await work(() => onAdd(input.value.trim()))) input.value = "";
        ready();
    };
    input.addEventListener("input", ready);
    input.addEventListener("keydown", (event) => event.key === "Enter" && put());
    adding.addEventListener("click", put);
    const calm = onSecondClick(removing, () => work(() => onRemove(chosen.value)), text(remove));
    chosen.addEventListener("change", calm);
    SERVING.subscribe(row.element, (state, fault) => {
        if (!state) return row.lock(fault);
        input.disabled = chosen.disabled = false;
        const before = chosen.value;
        chosen.replaceChildren(...names(state).map((one) => element("option", { value: one, textContent: one,
            selected: one === before })));
        if (chosen.value !== before) calm(); // the question was about another one
        chosen.hidden = removing.hidden = !chosen.options.length;
        row.setStatus(status(state));
        ready();
    });
    return { row, chosen };
}

/** A secret that is on the page until the dialog closes, and nowhere later. */
function once(label, value) {
    const shown = field(label, { value, readOnly: true });
    shown.addEventListener("focus", () => shown.select());
    return element("label", {}, element("span", { textContent: label }), shown);
}
