import { app } from "../../../scripts/app.js";
import { watchInputs } from "./node_inputs.js";
import { providers } from "./providers.js";

const NODES = ["Wan22RemoteImageToVideo", "Wan22RemoteFallback"];
const names = Object.assign({}, ...providers.map(({ models }) => models));

app.registerExtension({
    name: "wan22.model_names",
    nodeCreated(node) {
        if (!NODES.includes(node.comfyClass)) return;
        // The value stays the provider's id, in the workflow and in what Run sends.
        watchInputs(node, ["provider", "provider.model"], () => {
            const widget = node.widgets?.find((one) => one.name === "provider.model");
            if (widget) widget.options.getOptionLabel = (id) => names[id] ?? id;
        });
    },
});
