import { text } from "../text.js";
import { numberRow } from "./saved_row.js";
import { CACHE } from "./resource.js";
import { button, Row } from "./row.js";

const size = (bytes) => (bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

/** Maximum size of the cache, gigabytes. */
export const cacheLimit = (name) => numberRow(CACHE, "cache_gb", name);

/** The size of the cache, and a button that deletes unused files. */
export function cacheUse(name) {
    const clean = button("", { disabled: true });
    const row = new Row(clean);
    clean.addEventListener("click", () => row.work(() => CACHE.change("DELETE"), ""));
    CACHE.subscribe(row.element, (state, fault) => {
        if (!state) return row.lock(fault);
        const { whole, partial, files, idle, free, folder } = state;
        row.setStatus(text("settings.cache_use", { used: size(whole + partial), files, free: size(free) }));
        row.element.title = folder;
        clean.textContent = idle ? text("settings.clean", { idle: size(idle) }) : text("settings.nothing_to_clean");
        clean.ariaLabel = `${name}: ${clean.textContent}`;
        clean.disabled = !idle;
    });
    return row.element;
}
