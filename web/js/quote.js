import { app } from "../../../scripts/app.js";
import { addNodeNote } from "./node_note.js";
import { text } from "./text.js";

const INPUTS = ["provider", "provider.model", "profile", "prompt", "negative_prompt", "resolution", "num_frames",
    "num_inference_steps", "guidance_scale", "max_cost", "max_cost_per_day",
    "longer_clips", "strict", "loras", "last_image", "options"];

/** Two decimals, or three if the third is not zero. */
const dollars = (price) => `$${price.toFixed(3).replace(/0$/, "")}`;

function priceLine({ provider, price, asked, source, month, seconds }) {
    const values = { provider, month, price: price == null ? "" : dollars(price), seconds: +seconds.toFixed(1) };
    if (price == null) return { text: text("quote.none", values), look: "main" };
    return { text: text(asked ? "quote.asked" : "quote.table", values), look: "main", title: source };
}

function describe(quote) {
    return [priceLine(quote), ...quote.warnings.map((warning) => ({ text: warning, look: "warning" })),
        ...quote.notes.map((note) => ({ text: note, look: "quiet" }))];
}

app.registerExtension({
    name: "wan22.quote",
    nodeCreated(node) {
        if (node.comfyClass !== "Wan22RemoteImageToVideo") return;
        let edited = false; // no provider is asked for a workflow that was only opened
        addNodeNote(node, {
            name: "quote", path: "quote", inputs: INPUTS, lines: 5, describe,
            async more(byUser, loaded) {
                edited = (edited && !loaded) || byUser.size > 0;
                return { ask: edited };
            },
        });
    },
});
