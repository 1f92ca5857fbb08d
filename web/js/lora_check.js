import { app } from "../../../scripts/app.js";
import { typingEnded } from "./node_inputs.js";
import { addNodeNote } from "./node_note.js";
import { text } from "./text.js";

const INPUTS = ["source", "source_low", "expert", "sha256", "sha256_low", "min_match"];
const SOURCES = { source: "ask", source_low: "ask_low" };
const UNITS = ["B", "kB", "MB", "GB"];

function size(bytes) {
    const unit = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
    return `${+(bytes / 1000 ** unit).toPrecision(3)} ${UNITS[unit]}`;
}

function notRequested({ host, local_only }, press) {
    if (local_only) return [{ text: text("lora.local_only", { host }), look: "quiet" }];
    return [{ text: text("lora.unasked", { host }), look: "quiet", button: { label: text("lora.check"), press } }];
}

function checked(file) {
    const rank = file.ranks && (file.ranks[0] === file.ranks[1] ? file.ranks[0] : file.ranks.join("-"));
    const counts = file.keys.map(([expert, used, total]) =>
        text("lora.keys", { expert: text(`lora.${expert}`), used, total }));
    const facts = [...counts, ...(rank ? [text("lora.rank", { rank })] : []),
        ...(file.size == null ? [] : [size(file.size)])].join(" · ");
    const lines = [{ text: file.name, title: `${file.name}\n${file.kinds.join(", ")}; ${file.made_for}`, short: true,
        look: file.warning ? "main" : "good" }, { text: file.warning || facts, look: file.warning ? "warning" : "" }];
    const notes = [file.why && text("lora.auto", { why: file.why }), ...file.notes].filter(Boolean);
    return notes.length && !file.warning ? [...lines, { text: notes.join("; "), look: "quiet" }] : lines;
}

app.registerExtension({
    name: "wan22.lora",
    nodeCreated(node) {
        if (node.comfyClass !== "Wan22Lora") return;
        const requested = new Set(); // links that the user entered or checked
        addNodeNote(node, {
            name: "lora", path: "lora/check", inputs: INPUTS, lines: 4,
            describe({ files }, refresh) {
                if (!files.length) return [{ text: text("lora.empty"), look: "quiet" }];
                const press = () => {
                    Object.keys(SOURCES).forEach((name) => requested.add(name));
                    refresh();
                };
                return files.flatMap((file) => file.fault ? [{ text: file.fault, look: "warning" }]
                    : file.host ? notRequested(file, press) : checked(file));
            },
            async more(byUser, loaded) {
                if (loaded) requested.clear();
                const given = Object.keys(SOURCES).filter((name) => byUser.has(name));
                given.forEach((name) => requested.add(name));
                if (given.length) await typingEnded();
                return Object.fromEntries([...requested].map((name) => [SOURCES[name], true]));
            },
        });
    },
});
