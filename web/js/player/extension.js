import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { forwardToCanvas } from "../forward.js";
import { keyOf, lastingKeyOf } from "../node_key.js";
import { addStyle } from "../style.js";
import { clipsOf } from "./clip.js";
import { lastOutputs } from "./history.js";
import { Player } from "./player.js";

const NODES = new Set(["Wan22SaveMP4", "Wan22DecodeToMP4", "Wan22LongClip", "Wan22JoinClips", "Wan22ClipGrid",
    "Wan22RemoteImageToVideo", "Wan22ResumeRemoteClip"]);
/** Name and type of ComfyUI's own player: it adds none where there is one, and a subgraph can show it. */
const WIDGET = { name: "video-preview", type: "video" };
const MARGIN = 10;
const MOST_EARLIER = 20;

/** Node -> its player. */
const players = new WeakMap();
/** Workflow and node -> the clips that it has shown since the page was loaded, the newest first. */
const earlier = new Map();
/** Workflow -> its last outputs by the server's history, when it was first opened on this page. */
const history = new Map();
/** Ids, as in a run, of the nodes that the run in progress does not execute: their outputs are those of before. */
let cached = [];
/** The node that is executed now, if it is on the canvas. */
let executed;

const ourNodes = () => [app.rootGraph, ...app.rootGraph.subgraphs.values()]
    .flatMap((graph) => graph.nodes).filter((node) => NODES.has(node.comfyClass));

/**
 * Show the clips of an output.
 * @param {object} node
 * @param {object | undefined} output
 * @param {object} [how]
 * @param {boolean} [how.play]
 * @param {boolean} [how.isNew] whether they were just made: a name is reused after its file was deleted
 */
function show(node, output, { play = false, isNew = false } = {}) {
    const clips = clipsOf(output);
    if (!clips.length) return;
    node.previewMediaType = "video";
    node.images = output.images; // ComfyUI's classic canvas then regards them as shown,
    node.hideOutputImages = true; // and Nodes 2.0 leaves them to this player
    const player = players.get(node) ?? add(node);
    const ids = clips.map(({ id }) => id);
    if (!isNew && String(player.clips.map(({ id }) => id)) === String(ids)) return;
    const key = lastingKeyOf(node);
    const before = (earlier.get(key) ?? []).filter(({ id }) => !ids.includes(id));
    earlier.set(key, [...clips, ...before].slice(0, MOST_EARLIER));
    player.show(clips, { play });
}

function add(node) {
    const player = new Player(() => others(node), () => node.setDirtyCanvas(true, true));
    players.set(node, player);
    const widget = node.addDOMWidget(WIDGET.name, WIDGET.type, player.element, {
        serialize: false,
        hideOnZoom: false,
        hideInPanel: true,
        margin: MARGIN,
        getMinHeight: () => player.minHeight(node.size[0] - 2 * MARGIN) + 2 * MARGIN,
    });
    widget.serialize = false;
    const { onRemove } = widget;
    widget.onRemove = function () {
        onRemove?.call(this);
        players.delete(node);
        player.release();
    };
    forwardToCanvas(player.element);
    return player;
}

/** Return the clips to compare with: earlier ones of this node, then those of the other nodes. */
function others(node) {
    const shown = players.get(node).clip;
    const own = earlier.get(lastingKeyOf(node)) ?? [];
    const found = own.map((clip) => ({ name: clip.name, clip }));
    for (const other of ourNodes()) {
        if (other === node) continue;
        for (const clip of players.get(other)?.clips ?? [])
            found.push({ name: `${other.title} #${other.id}: ${clip.name}`, clip });
    }
    return found.filter(({ clip }) => clip.id !== shown.id);
}

/** Show the outputs of the server's history again: a page that was loaded anew has none. */
async function restore() {
    const { id } = app.rootGraph;
    if (!history.has(id)) history.set(id, lastOutputs(id));
    const requested = history.get(id);
    let outputs;
    try {
        outputs = await requested;
    } catch { // the server does not answer: it is asked again when the workflow is opened again
        if (history.get(id) === requested) history.delete(id);
        return;
    }
    if (app.rootGraph.id !== id) return; // another workflow was opened meanwhile
    for (const node of app.rootGraph.nodes)
        if (NODES.has(node.comfyClass) && !players.has(node)) show(node, outputs[node.id]);
}

/** Return the node with an id as in a run, which names the subgraph nodes around it. */
function nodeInRun(id) {
    const around = String(id).split(":");
    const own = around.pop();
    const graph = around.reduce((found, part) => found?.getNodeById(part)?.subgraph, app.rootGraph);
    return graph?.getNodeById(own);
}

/**
 * Take back that a node has a clip while it is executed: its previews are pictures, which ComfyUI's canvas would
 * otherwise try to play.
 */
function expectPreviews(node) {
    delete node.previewMediaType;
    delete node.videoContainer;
    const output = app.nodeOutputs[keyOf(node)];
    if (output) delete output.animated;
}

api.addEventListener("executing", ({ detail }) => {
    if (players.has(executed)) executed.previewMediaType = "video";
    executed = detail === null ? undefined : nodeInRun(detail);
    if (players.has(executed)) expectPreviews(executed);
});
api.addEventListener("execution_start", () => (cached = []));
api.addEventListener("execution_cached", ({ detail }) => (cached = detail.nodes));
addStyle("controls");
addStyle("player");
app.registerExtension({
    name: "wan22.player",
    nodeCreated(node) {
        if (!NODES.has(node.comfyClass)) return;
        const { onExecuted } = node;
        node.onExecuted = function (output) {
            onExecuted?.call(this, output);
            show(this, output, { play: true, isNew: !cached.some((id) => nodeInRun(id) === this) });
        };
    },
    loadedGraphNode(node) {
        if (NODES.has(node.comfyClass)) show(node, app.nodeOutputs[keyOf(node)]);
    },
    afterConfigureGraph() {
        restore(); // the canvas does not wait for it
    },
    onNodeOutputsUpdated(outputs) {
        for (const node of ourNodes()) show(node, outputs[keyOf(node)]);
    },
});
