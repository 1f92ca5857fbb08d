import { app } from "../../../scripts/app.js";
import { addNodeNote } from "./node_note.js";
import { INPUTS } from "./quote_inputs.js";
import { request } from "./server.js";
import { text } from "./text.js";

/** Two decimals, or three if the third is not zero. */
const dollars = (price) => `$${price.toFixed(3).replace(/0$/, "")}`;

/** Have limits judge a model without a known price by the highest of its estimates, from now on. */
async function acceptEstimates(model) {
    const { settings } = await request("settings");
    const accepted = [...settings.accepted_estimates.value, model];
    await request("settings", { method: "POST", body: { accepted_estimates: accepted } });
}

function priceLine({ provider, model, price, estimates, asked, source, month, seconds }, refresh) {
    const values = { provider, month, price: price == null ? "" : dollars(price), seconds: +seconds.toFixed(1) };
    if (price === 0) return { text: text("quote.free", values), look: "main" };
    if (price != null) {
        return { text: text(asked ? "quote.asked" : "quote.table", values), look: "main", title: source };
    }
    if (!estimates) return { text: text("quote.none", values), look: "main" };
    const [lowest, highest] = estimates.map(dollars);
    return {
        text: text("quote.estimates", { ...values, lowest, highest }), look: "main", title: source,
        button: { label: text("quote.accept", { highest }), press: () => acceptEstimates(model).then(refresh) },
    };
}

function describe(quote, refresh) {
    return [priceLine(quote, refresh), ...quote.warnings.map((warning) => ({ text: warning, look: "warning" })),
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
