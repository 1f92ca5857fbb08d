import { text } from "../text.js";
import { shownProfile } from "./keys.js";
import { savedRow, numberRow, switchRow, typedNumber } from "./saved_row.js";
import { KEYS, REMOTE } from "./resource.js";
import { field } from "./row.js";

/** Maximum price of a clip, US dollars. */
export const clipBudget = (name) => numberRow(REMOTE, "max_cost", name, text("settings.no_limit"));

/** Maximum price of all clips of 24 hours, US dollars. */
export const dayBudget = (name) => numberRow(REMOTE, "max_cost_per_day", name, text("settings.no_limit"),
    ({ spent }) => text("settings.spent", { spent: spent.toFixed(2) }));

/** Whether remote nodes refuse to send anything. */
export const localOnly = (name) => switchRow(REMOTE, "local_only", name);

/** The address at which providers reach this server. */
export function publicUrl(name) {
    const input = addressField(name);
    return savedRow(REMOTE, "public_url", input, {
        read: () => input.value.trim() || null, show: (value) => (input.value = value),
    });
}

/** The address of the user's own server in the selected profile. */
export function ownServer(name) {
    const input = addressField(name);
    return savedRow(REMOTE, "own_servers", input, {
        read: () => ({ [shownProfile()]: input.value.trim() || null }),
        show: (value) => (input.value = value[shownProfile()] ?? ""),
        after: () => KEYS.reload(), // a key is for its address, and goes with it
        entry: shownProfile,
    });
}

/** How many jobs of a provider may run at once. @param {string} provider @param {number} own number of a new account */
export const jobsAtOnce = (provider, own) => (name) => {
    const input = field(name, { inputMode: "numeric", placeholder: own });
    input.classList.add("wan22-settings-short");
    return savedRow(REMOTE, "concurrent", input, {
        read: () => ({ [provider]: typedNumber(input) }),
        show: (value) => {
            input.value = value[provider] ?? "";
        },
    });
};

function addressField(name) {
    const input = field(name, { inputMode: "url", placeholder: text("settings.no_url") });
    input.classList.add("wan22-settings-long");
    return input;
}
