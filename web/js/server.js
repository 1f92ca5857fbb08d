import { api } from "../../../scripts/api.js";

/**
 * Ask a route of the pack.
 * @param {string} path below /wan22/, with its query
 * @param {{method?: string, body?: object}} [request] body: sent as JSON
 * @returns {Promise<any>} the answer's JSON; null when it has none
 * @throws {Error} with the server's own sentence, when it refuses
 */
export async function ask(path, { method = "GET", body } = {}) {
    const answer = await api.fetchApi(`/wan22/${path}`, {
        method,
        cache: "no-store",
        ...(body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text || `${answer.status} ${answer.statusText}`);
    return text ? JSON.parse(text) : null;
}
