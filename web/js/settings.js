import { app } from "../../../scripts/app.js";
import { providers, services } from "./providers.js";
import { cacheLimit, cacheUse } from "./settings/cache.js";
import { keyRow, profileRow, tokenRow } from "./settings/keys.js";
import { NEW_MP4, setDefaults, watchLoading } from "./settings/new_mp4.js";
import { clipBudget, dayBudget, jobsAtOnce, localOnly, ownServer, publicUrl } from "./settings/remote.js";
import { apiKeys, apiModel, apiOn, apiPerMinute, apiQueue, apiRetention, savedModels } from "./settings/serving.js";
import { addStyle } from "./style.js";
import { ENGLISH, text } from "./text.js";

addStyle("settings");

/** A provider's or a service's row: the server gives its title, and all of them share one text of the locales. */
function sharedRow(id, type, key, { title, keys_page: page }) {
    return {
        id, type,
        get name() { // read each time that the dialog is drawn, in the language of that moment
            return text(`settings.${key}.name`, { title });
        },
        get tooltip() {
            const tooltip = text(`settings.${key}.tooltip`, { title });
            return page ? `${tooltip} ${text("settings.keys_page", { page })}` : tooltip;
        },
    };
}

/** A row of its own: name and tooltip are in settings.json of each locale, where ComfyUI itself looks them up. */
function row(id, type) {
    const { name = id, tooltip } = ENGLISH.settings?.[id.replaceAll(".", "_")] ?? {};
    return { id, type, name, tooltip };
}

/** Heading -> its rows, from the top down. Error messages name these headings (pipeline/remote/ui_names.py). */
const GROUPS = {
    "Providers and keys": [
        row("Wan22.Keys.Profile", profileRow),
        ...providers.flatMap((provider) => [
            ...(provider.own_server ? [sharedRow(`Wan22.Servers.${provider.name}`, ownServer, "server", provider)] : []),
            sharedRow(`Wan22.Keys.${provider.name}`, keyRow(provider.name), "key", provider)]),
        row("Wan22.Keys.Callback", keyRow("callback")),
    ],
    "Budget": [
        row("Wan22.Budget.Clip", clipBudget),
        row("Wan22.Budget.Day", dayBudget),
    ],
    "What leaves this machine": [
        row("Wan22.Sending.LocalOnly", localOnly),
        row("Wan22.Sending.PublicUrl", publicUrl),
    ],
    "API": [
        row("Wan22.Api.On", apiOn),
        row("Wan22.Api.Keys", apiKeys),
        row("Wan22.Api.Model", apiModel),
        row("Wan22.Api.SavedModels", savedModels),
        row("Wan22.Api.PerMinute", apiPerMinute),
        row("Wan22.Api.Queue", apiQueue),
        row("Wan22.Api.RetentionDays", apiRetention),
    ],
    "Concurrent jobs": providers.map(({ name, title, concurrent }) =>
        sharedRow(`Wan22.Jobs.${name}`, jobsAtOnce(name, concurrent), "jobs", { title })),
    "Downloads by link": [
        ...services.map((service) =>
            sharedRow(`Wan22.Downloads.${service.name}`, tokenRow(service.name), "token", service)),
        row("Wan22.Downloads.CacheLimit", cacheLimit),
        row("Wan22.Downloads.CacheUse", cacheUse),
    ],
    "Defaults of new MP4 nodes": NEW_MP4.map(({ id, type, ...more }) => Object.assign(row(id, type), more)),
};

const settings = Object.entries(GROUPS).flatMap(([heading, rows]) => rows.map((setting) =>
    Object.assign(setting, { category: ["Wan 2.2", heading, setting.id] })));
settings.forEach((setting, place) => {
    setting.defaultValue ??= null;
    setting.sortOrder = settings.length - place;
});

app.registerExtension({ name: "wan22.settings", settings, setup: watchLoading, nodeCreated: setDefaults });
