import { app } from "../../../scripts/app.js";
import { cacheLimit, cacheUse } from "./settings/cache.js";
import { keyRow, profileRow, tokenRow } from "./settings/keys.js";
import { NEW_MP4, startAsSettled, watchLoading } from "./settings/new_mp4.js";
import { clipBudget, dayBudget, jobsAtOnce, localOnly, publicUrl } from "./settings/remote.js";
import { addStyle } from "./style.js";
import { ENGLISH } from "./text.js";

addStyle("settings");

/** Heading -> its settings, from the top down. Error messages name these headings (pipeline/remote/places.py). */
const GROUPS = {
    "Providers and keys": [
        { id: "Wan22.Keys.Profile", type: profileRow },
        { id: "Wan22.Keys.WaveSpeed", type: keyRow("wavespeed") },
        { id: "Wan22.Keys.AtlasCloud", type: keyRow("atlascloud") },
        { id: "Wan22.Keys.Fal", type: keyRow("fal") },
        { id: "Wan22.Keys.Replicate", type: keyRow("replicate") },
        { id: "Wan22.Keys.Callback", type: keyRow("callback") },
    ],
    "Budget": [
        { id: "Wan22.Budget.Clip", type: clipBudget },
        { id: "Wan22.Budget.Day", type: dayBudget },
    ],
    "What leaves this machine": [
        { id: "Wan22.Sending.LocalOnly", type: localOnly },
        { id: "Wan22.Sending.PublicUrl", type: publicUrl },
    ],
    "Jobs at once": [
        { id: "Wan22.Jobs.WaveSpeed", type: jobsAtOnce("wavespeed") },
        { id: "Wan22.Jobs.AtlasCloud", type: jobsAtOnce("atlascloud") },
        { id: "Wan22.Jobs.Fal", type: jobsAtOnce("fal") },
        { id: "Wan22.Jobs.Replicate", type: jobsAtOnce("replicate") },
    ],
    "Downloads by link": [
        { id: "Wan22.Downloads.HuggingFace", type: tokenRow("huggingface") },
        { id: "Wan22.Downloads.Civitai", type: tokenRow("civitai") },
        { id: "Wan22.Downloads.CacheLimit", type: cacheLimit },
        { id: "Wan22.Downloads.CacheUse", type: cacheUse },
    ],
    "New MP4 nodes": NEW_MP4,
};

const settings = Object.entries(GROUPS).flatMap(([heading, group]) => group.map((setting) => {
    const { name = setting.id, tooltip } = ENGLISH.settings?.[setting.id.replaceAll(".", "_")] ?? {};
    return { defaultValue: null, ...setting, name, tooltip, category: ["Wan 2.2", heading, setting.id] };
}));

app.registerExtension({
    name: "wan22.settings",
    settings: settings.map((setting, place) => ({ ...setting, sortOrder: settings.length - place })),
    setup: watchLoading,
    nodeCreated: startAsSettled,
});
