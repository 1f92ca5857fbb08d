import { text } from "../text.js";
import { KEYS, REMOTE } from "./resource.js";
import { button, element, field, Row } from "./row.js";

const DEFAULT = "default";
const PASSWORD_MANAGERS = ["data-1p-ignore", "data-lpignore", "data-bwignore"];
/** The profile whose keys the rows show. */
let profile = DEFAULT;

/** A row for a provider's key in the selected profile. The environment's keys belong to `default`. */
export const keyRow = (provider) => (name) => secretRow(provider, name, () => ({ profile }), (state) => ({
    variable: profile === DEFAULT && variableOf(provider, state), saved: state.profiles[profile]?.includes(provider),
}));

/** The profile whose keys and addresses the rows show. */
export const shownProfile = () => profile;

/** A row for the token of a download service, which no profile has. */
export const tokenRow = (service) => (name) => secretRow(service, name, () => ({}), (state) => ({
    variable: variableOf(service, state), saved: state.services.includes(service),
}));

const variableOf = (owner, state) => state.environment[owner];

/** A row that saves or removes a key and never shows one. */
function secretRow(provider, name, place, find) {
    const input = field(name, { type: "password" });
    for (const attribute of PASSWORD_MANAGERS) input.setAttribute(attribute, "true");
    const save = button(text("settings.save"), { ariaLabel: `${text("settings.save")}: ${name}` });
    const remove = button(text("settings.remove"), { ariaLabel: `${text("settings.remove")}: ${name}` });
    const row = new Row(input, save, remove);
    const ready = () => (save.disabled = input.disabled || !input.value.trim());
    const send = (method, key) => {
        const body = { provider, ...place(), ...key };
        input.value = ""; // whatever the server says: a key does not stay on the page
        ready();
        row.work(() => KEYS.change(method, () => body), "");
    };
    const keep = () => save.disabled || send("POST", { key: input.value });
    input.addEventListener("input", ready);
    input.addEventListener("keydown", (event) => event.key === "Enter" && keep());
    save.addEventListener("click", keep);
    onSecondClick(remove, () => send("DELETE", {}));
    KEYS.subscribe(row.element, (state, fault) => {
        if (!state) return row.lock(fault);
        const { variable, saved } = find(state);
        input.disabled = Boolean(variable);
        input.placeholder = variable ? "" : text(saved ? "settings.replace_key" : "settings.paste_key");
        remove.disabled = Boolean(variable) || !saved;
        if (variable) row.setStatus(text("settings.from_environment", { variable }));
        else row.setStatus(text(saved ? "settings.key_saved" : "settings.key_missing"));
        ready();
    });
    return row.element;
}

/** What is removed cannot be recovered: the first click only asks. Returns a function that takes the question back. */
export function onSecondClick(removing, work, label = text("settings.remove")) {
    const ask = (isAsking) => {
        removing.classList.toggle("wan22-settings-sure", isAsking);
        removing.textContent = isAsking ? text("settings.remove_sure") : label;
    };
    removing.addEventListener("blur", () => ask(false));
    removing.addEventListener("click", () => {
        const isSure = removing.classList.contains("wan22-settings-sure");
        ask(!isSure);
        if (isSure) work();
    });
    return () => ask(false);
}

/** A row that selects the profile of the other rows; a new name starts a new profile. */
export function profileRow(name) {
    const chosen = element("select", { className: "wan22-settings-field", ariaLabel: name });
    const typed = field(text("settings.new_profile"), { placeholder: text("settings.profile_name"), hidden: true });
    const row = new Row(typed, chosen);
    const choose = (name) => {
        profile = name;
        typed.hidden = true;
        typed.value = "";
        KEYS.show();
        REMOTE.show();
    };
    chosen.addEventListener("change", () => {
        if (chosen.value) return choose(chosen.value);
        typed.hidden = false;
        typed.focus();
    });
    typed.addEventListener("change", () => choose(typed.value.trim() || profile));
    typed.addEventListener("blur", () => choose(profile));
    KEYS.subscribe(row.element, (state, fault) => {
        if (!state) return row.lock(fault);
        const names = [...new Set([DEFAULT, ...Object.keys(state.profiles), profile])];
        chosen.replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })),
            element("option", { value: "", textContent: text("settings.new_profile") }));
        chosen.value = typed.hidden ? profile : "";
        chosen.disabled = typed.disabled = false;
        row.setStatus("");
    });
    return row.element;
}
