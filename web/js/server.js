import { api } from "../../../scripts/api.js";

/**
 * Send a request to a route of the pack.
 * @param {string} path below /wan22/, with its query
 * @param {{method?: string, body?: object}} [options] body: sent as JSON
 * @returns {Promise<any>} the response's JSON; null for an empty one
 * @throws {Error} with the server's own sentence, when it refuses
 */
export async function request(path, { method = "GET", body } = {}) {
    const response = await api.fetchApi(`/wan22/${path}`, {
        method,
        cache: "no-store",
        ...(body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(text || `${response.status} ${response.statusText}`);
    return text ? JSON.parse(text) : null;
}
