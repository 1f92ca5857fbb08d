import { app } from "../../../scripts/app.js";

/** Return the key of a node in app.nodeOutputs. */
export const keyOf = (node) => (node.graph.isRootGraph ? String(node.id) : `${node.graph.id}:${node.id}`);

/** Return a key that a node keeps when undo, or another tab in between, has made it anew: of its workflow and its own. */
export const lastingKeyOf = (node) => `${app.rootGraph.id}/${keyOf(node)}`;
