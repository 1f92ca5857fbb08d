import { request } from "../server.js";
import { text } from "../text.js";

const PAGE = 100;
const MIN_INTERVAL = 400; // milliseconds between two requests, however many events come

/**
 * One clip, as pipeline/jobs/entry.py has it.
 * @typedef {{id: string, remote: boolean, state: string, created: number, began: ?number, ended: ?number,
 *   run: ?string, provider: string, model: string, prompt: string, error: string, file: ?object, workflow: boolean,
 *   progress: ?{node: string, value: number, max: number}, nodes: Record<string, string>, sent: boolean,
 *   cancels: boolean, own_server: boolean, place: ?number, price: ?number, price_source: string}} Job
 */

/** The jobs that this page knows of. Dispatches "change" when any of them changes. */
export class JobList extends EventTarget {
    /** @type {Map<string, Job>} */
    jobs = new Map();
    /** Whether the server has older ones. */
    more = false;
    /** US dollars spent in the last 24 hours. */
    spent = 0;
    /** Maximum per 24 hours in US dollars; null: no limit. */
    budget = null;
    /** Why the last request failed; "" when it did not. */
    fault = "";
    loaded = false;
    /** Another string after ComfyUI was restarted. */
    server = "";
    #serverTime = 0; // the server's clock at the last response
    #receivedAt = 0; // ours at that moment
    #oldest = Infinity; // of the pages, for requesting the next one
    #running = null; // the request in progress
    #pending = ""; // what to request after it: "load" or "changes"

    /** @returns {Job[]} the newest first */
    sorted() {
        return [...this.jobs.values()].sort((one, other) => other.created - one.created);
    }

    /** Seconds since 1970 by the server's clock. */
    now() {
        return this.#serverTime + (performance.now() - this.#receivedAt) / 1000;
    }

    /** Request the newest jobs, and forget the others. */
    load() {
        return this.#schedule("load");
    }

    /** Request what has changed. */
    refresh() {
        return this.#schedule(this.loaded ? this.#pending || "changes" : "load");
    }

    /** Request the next older page. */
    async older() {
        while (this.#running) await this.#running;
        if (!this.more) return;
        const page = async () => this.#applyPage(await request(`jobs?limit=${PAGE}&before=${this.#oldest}`));
        this.#running = this.#attempt(page).finally(() => (this.#running = null));
        await this.#running;
        if (this.#pending) this.#schedule(this.#pending); // an event came meanwhile
    }

    /** Apply the detail of ComfyUI's event progress_state: {prompt_id, nodes}. */
    applyProgress({ prompt_id, nodes }) {
        const job = this.jobs.get(prompt_id);
        const running = Object.entries(nodes).filter(([id, node]) => node.state === "running" && job?.nodes[id]);
        if (!running.length) return;
        const [id, { value, max }] = running.reduce((one, other) => (other[1].max > one[1].max ? other : one));
        this.jobs.set(prompt_id, { ...job, state: "running", progress: { node: job.nodes[id], value, max } });
        this.#notify();
    }

    #schedule(what) {
        this.#pending = what;
        this.#running ??= this.#requestAll().finally(() => (this.#running = null));
        return this.#running;
    }

    async #requestAll() {
        while (this.#pending) {
            const what = this.#pending;
            this.#pending = "";
            await this.#attempt(() => (what === "load" ? this.#load() : this.#changes()));
            await new Promise((done) => setTimeout(done, MIN_INTERVAL));
        }
    }

    async #attempt(work) {
        try {
            await work();
            this.fault = "";
        } catch (error) {
            this.fault = error instanceof TypeError ? text("jobs.gone") : error.message;
        }
        this.#notify();
    }

    async #load() {
        const response = await request(`jobs?limit=${PAGE}`);
        this.jobs.clear();
        this.loaded = true;
        this.#applyPage(response);
    }

    async #changes() {
        const response = await request(`jobs?since=${this.#serverTime}`);
        const reported = new Set(response.jobs.map((job) => job.id));
        for (const job of [...this.jobs.values()])
            if (!job.remote && job.run && !reported.has(job.id)) this.jobs.delete(job.id);
        this.#apply(response);
    }

    #applyPage(response) {
        this.more = response.more;
        this.#oldest = response.jobs.at(-1)?.created ?? this.#oldest;
        this.#apply(response);
    }

    #apply({ jobs, now, spent, budget, server }) {
        for (const job of jobs) this.jobs.set(job.id, job);
        [this.#serverTime, this.#receivedAt] = [now, performance.now()];
        [this.spent, this.budget, this.server] = [spent, budget, server];
    }

    #notify() {
        this.dispatchEvent(new Event("change"));
    }
}
