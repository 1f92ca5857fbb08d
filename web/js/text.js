import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const LANGUAGES = await api.fetchApi("/i18n").then((answer) => answer.json()).catch(() => ({}));

/** English texts of all files in locales/en/. */
export const ENGLISH = LANGUAGES.en ?? {};

/**
 * Return a text in the user's language, from "wan22" of locales/<language>/main.json; in English if there is none.
 * @param {string} key parts joined by dots, such as "jobs.cancel"
 * @param {Record<string, string | number>} [values] for the {names} in the text
 */
export function text(key, values = {}) {
    const language = app.extensionManager.setting.get("Comfy.Locale") ?? "en";
    const found = [language, language.split("-")[0], "en"]
        .map((name) => key.split(".").reduce((part, step) => part?.[step], LANGUAGES[name]?.wan22))
        .find((value) => typeof value === "string");
    return (found ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
