import { ask } from "../server.js";

/** The answer of one route, shared by all rows that show it. */
export class Part {
    #path;
    #rows = new Set();
    #asked = 0;
    #coming = null;
    #changed = Promise.resolve();
    #fault = "";

    /** @param {string} path below /wan22/ */
    constructor(path) {
        this.#path = path;
        /** What the route answered last; null before that, and when it refused. */
        this.answer = null;
    }

    /**
     * Have a row follow the answer as long as it is on the page.
     * @param {HTMLElement} element
     * @param {(answer: any, fault: string) => void} show answer: null when the server gives none; then fault says why
     */
    follow(element, show) {
        this.#rows.add({ element, show });
        show(this.answer, "");
        this.#coming ??= this.#load().finally(() => (this.#coming = null)); // one question for all rows of a dialog
    }

    /**
     * Have the server change something, and show how things then stand. One change at a time.
     * @param {string} method
     * @param {() => any} [body] called when its turn comes, so that it knows what the change before it brought
     * @throws {Error} with the server's sentence
     */
    change(method, body = () => undefined) {
        const change = this.#changed.then(() => this.#change(method, body()));
        this.#changed = change.catch(() => {});
        return change;
    }

    async #change(method, body) {
        const answer = await ask(this.#path, { method, body });
        if (answer === null) await this.#load();
        else this.#take(++this.#asked, answer, "");
    }

    /** Have the rows show the answer once more. */
    show() {
        for (const row of this.#rows) {
            if (row.element.isConnected) row.show(this.answer, this.#fault);
            else this.#rows.delete(row);
        }
    }

    async #load() {
        const turn = ++this.#asked;
        try {
            this.#take(turn, await ask(this.#path), "");
        } catch (error) {
            this.#take(turn, null, error.message);
        }
    }

    #take(turn, answer, fault) {
        if (turn !== this.#asked) return; // a later question is under way
        this.answer = answer;
        this.#fault = fault;
        this.show();
    }
}

export const KEYS = new Part("keys");
export const REMOTE = new Part("settings");
export const CACHE = new Part("cache");
