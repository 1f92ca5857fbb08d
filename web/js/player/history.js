import { api } from "../../../../scripts/api.js";

/** Of the newest runs; a run can be some 100 kB. */
const RUNS = 10;

/**
 * What the nodes of a workflow gave out last, as far as the server remembers.
 * @param {string} workflow its id
 * @returns {Promise<Record<string, object>>} id of a node outside of subgraphs -> its output
 */
export async function lastOutputs(workflow) {
    const answer = await api.fetchApi(`/history?max_items=${RUNS}`);
    const runs = Object.values(await answer.json()); // the newest last
    return Object.assign({}, ...runs.filter(({ prompt }) => prompt[3]?.extra_pnginfo?.workflow?.id === workflow)
        .map(({ outputs }) => outputs));
}
