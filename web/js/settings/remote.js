import { text } from "../text.js";
import { keptRow, numberRow, switchRow, typedNumber } from "./kept.js";
import { REMOTE } from "./part.js";
import { field } from "./row.js";

/** US dollars that a clip may cost. */
export const clipBudget = (name) => numberRow(REMOTE, "max_cost", name, text("settings.no_limit"));

/** US dollars that all clips of 24 hours may cost together. */
export const dayBudget = (name) => numberRow(REMOTE, "max_cost_per_day", name, text("settings.no_limit"),
    ({ spent }) => text("settings.spent", { spent: spent.toFixed(2) }));

/** Whether remote nodes refuse to send anything. */
export const localOnly = (name) => switchRow(REMOTE, "local_only", name);

/** Where providers reach this server. */
export function publicUrl(name) {
    const input = field(name, { inputMode: "url", placeholder: text("settings.no_url") });
    input.classList.add("wan22-settings-long");
    return keptRow(REMOTE, "public_url", input, {
        read: () => input.value.trim() || null, show: (value) => (input.value = value),
    });
}

/** How many jobs of a provider may be under way. */
export const jobsAtOnce = (provider) => (name) => {
    const input = field(name, { inputMode: "numeric" });
    input.classList.add("wan22-settings-short");
    return keptRow(REMOTE, "concurrent", input, {
        read: () => {
            const { [provider]: _, ...others } = REMOTE.answer.settings.concurrent.value;
            const most = typedNumber(input);
            if (most !== null) return { ...others, [provider]: most };
            return Object.keys(others).length ? others : null;
        },
        show: (value) => {
            input.placeholder = REMOTE.answer.jobs_at_once[provider];
            input.value = value[provider] ?? "";
        },
    });
};
