import { request } from "../server.js";

/** The state of one route, shared by all rows that show it. */
class Resource {
    #path;
    #rows = new Set();
    #requests = 0;
    #loading = null;
    #lastChange = Promise.resolve();
    #fault = "";

    /** @param {string} path below /wan22/ */
    constructor(path) {
        this.#path = path;
        /** The last response of the route; null before it, and after the server has refused. */
        this.state = null;
    }

    /**
     * Show the state in a row, now and after every change, as long as the row is on the page.
     * @param {HTMLElement} element
     * @param {(state: any, fault: string) => void} show state: null when the server gives none; then fault says why
     */
    subscribe(element, show) {
        this.#rows.add({ element, show });
        show(this.state, "");
        this.#loading ??= this.#load().finally(() => (this.#loading = null)); // one request for all rows of a dialog
    }

    /**
     * Send a change to the server, and show the new state. One change at a time.
     * @param {string} method
     * @param {() => any} [body] called when its turn comes, after the change before it
     * @throws {Error} with the server's sentence
     */
    change(method, body = () => undefined) {
        const change = this.#lastChange.then(() => this.#change(method, body()));
        this.#lastChange = change.catch(() => {});
        return change;
    }

    /** Request the state again, after a change by another route. */
    reload() {
        return this.#load();
    }

    /** Show the state in all rows. */
    show() {
        for (const row of this.#rows) {
            if (row.element.isConnected) row.show(this.state, this.#fault);
            else this.#rows.delete(row);
        }
    }

    async #change(method, body) {
        const state = await request(this.#path, { method, body });
        if (state === null) await this.#load();
        else this.#apply(++this.#requests, state, "");
    }

    async #load() {
        const number = ++this.#requests;
        try {
            this.#apply(number, await request(this.#path), "");
        } catch (error) {
            this.#apply(number, null, error.message);
        }
    }

    #apply(number, state, fault) {
        if (number !== this.#requests) return; // a later request is in progress
        this.state = state;
        this.#fault = fault;
        this.show();
    }
}

export const KEYS = new Resource("keys");
export const REMOTE = new Resource("settings");
export const CACHE = new Resource("cache");
export const SERVING = new Resource("serving");
