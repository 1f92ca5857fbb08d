import { ask } from "../server.js";
import { text } from "../text.js";

const PAGE = 100;
const REST = 400; // milliseconds between two questions, however many events come

/**
 * One clip, as pipeline/jobs/entry.py has it.
 * @typedef {{id: string, remote: boolean, state: string, created: number, began: ?number, ended: ?number,
 *   run: ?string, provider: string, model: string, prompt: string, error: string, file: ?object, workflow: boolean,
 *   progress: ?{node: string, value: number, max: number}, nodes: Record<string, string>, sent: boolean,
 *   cancels: boolean, place: ?number, price: ?number, price_source: string}} Job
 */

/** The jobs that this page knows of. Dispatches "change" whenever something of them did. */
export class JobList extends EventTarget {
    /** @type {Map<string, Job>} */
    jobs = new Map();
    /** Whether there are older ones on the server. */
    more = false;
    /** US dollars of the last 24 hours. */
    spent = 0;
    /** US dollars that a day may cost; null: no limit. */
    budget = null;
    /** Why nothing newer is known; "" when all is well. */
    fault = "";
    loaded = false;
    #now = 0; // the server's clock, at the last answer
    #heard = 0; // ours, then
    #oldest = Infinity; // of the pages, to ask for the next one
    #work = null;
    #wanted = "";

    /** @returns {Job[]} the newest first */
    sorted() {
        return [...this.jobs.values()].sort((one, other) => other.created - one.created);
    }

    /** Seconds since 1970 by the server's clock. */
    now() {
        return this.#now + (performance.now() - this.#heard) / 1000;
    }

    /** Ask for the newest jobs, and forget what was known. */
    load() {
        return this.#want("load");
    }

    /** Ask what has changed. */
    refresh() {
        return this.#want(this.loaded ? this.#wanted || "changes" : "load");
    }

    /** Ask for the next older page. */
    async older() {
        while (this.#work) await this.#work;
        if (!this.more) return;
        const page = async () => this.#takePage(await ask(`jobs?limit=${PAGE}&before=${this.#oldest}`));
        this.#work = this.#try(page).finally(() => (this.#work = null));
        await this.#work;
        if (this.#wanted) this.#want(this.#wanted); // by an event that came meanwhile
    }

    /** Take what ComfyUI tells of the nodes of a run: {prompt_id, nodes}. */
    takeProgress({ prompt_id, nodes }) {
        const job = this.jobs.get(prompt_id);
        const running = Object.entries(nodes).filter(([id, node]) => node.state === "running" && job?.nodes[id]);
        if (!running.length) return;
        const [id, { value, max }] = running.reduce((one, other) => (other[1].max > one[1].max ? other : one));
        this.jobs.set(prompt_id, { ...job, state: "running", progress: { node: job.nodes[id], value, max } });
        this.#tell();
    }

    #want(what) {
        this.#wanted = what;
        this.#work ??= this.#answerAll().finally(() => (this.#work = null));
        return this.#work;
    }

    async #answerAll() {
        while (this.#wanted) {
            const what = this.#wanted;
            this.#wanted = "";
            await this.#try(() => (what === "load" ? this.#load() : this.#changes()));
            await new Promise((done) => setTimeout(done, REST));
        }
    }

    async #try(work) {
        try {
            await work();
            this.fault = "";
        } catch (error) {
            this.fault = error instanceof TypeError ? text("jobs.gone") : error.message;
        }
        this.#tell();
    }

    async #load() {
        const answer = await ask(`jobs?limit=${PAGE}`);
        this.jobs.clear();
        this.loaded = true;
        this.#takePage(answer);
    }

    async #changes() {
        const answer = await ask(`jobs?since=${this.#now}`);
        const told = new Set(answer.jobs.map((job) => job.id));
        for (const job of [...this.jobs.values()])
            if (!job.remote && job.run && !told.has(job.id)) this.jobs.delete(job.id);
        this.#take(answer);
    }

    #takePage(answer) {
        this.more = answer.more;
        this.#oldest = answer.jobs.at(-1)?.created ?? this.#oldest;
        this.#take(answer);
    }

    #take({ jobs, now, spent, budget }) {
        for (const job of jobs) this.jobs.set(job.id, job);
        [this.#now, this.#heard] = [now, performance.now()];
        [this.spent, this.budget] = [spent, budget];
    }

    #tell() {
        this.dispatchEvent(new Event("change"));
    }
}
