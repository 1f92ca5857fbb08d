import { api } from "../../../../scripts/api.js";

/** Number of the newest runs to request; a run can have 100 kB. */
const RUNS = 10;

/**
 * Return the last outputs of a workflow's nodes, as far as the server's history goes.
 * @param {string} workflow id
 * @returns {Promise<Record<string, object>>} id of a node outside of subgraphs -> its output
 */
export async function lastOutputs(workflow) {
    const answer = await api.fetchApi(`/history?max_items=${RUNS}`);
    const runs = Object.values(await answer.json()); // the newest last
    return Object.assign({}, ...runs.filter(({ prompt }) => prompt[3]?.extra_pnginfo?.workflow?.id === workflow)
        .map(({ outputs }) => outputs));
}
