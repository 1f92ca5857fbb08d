import { api } from "../../../../scripts/api.js";
import { changed } from "./axes.js";

const FILE = "wan22/variants.json";
const ENDED = ["done", "failed", "canceled", "lost"];
const REMOTE = "Wan22Remote";

/**
 * One clip. job: the run's id. ledger: the remote job's that it became, or "". of: the workflow it changes, a key of VariantList.bases. server: the JobList's when it
 * was queued, "" before. again: whether it was queued anew after a restart.
 * @typedef {{job: string, ledger: string, of: string, changes: import("./axes.js").Change[], state: string, error: string,
 *   file: ?object, kept: boolean, server: string, again: boolean}} Variant
 */

/** The variants that were queued and not discarded. They are kept in the user's folder. Dispatches "change". */
export class VariantList extends EventTarget {
    /** @type {Variant[]} */
    variants = [];
    /** Workflows, by a key of their own. */
    bases = {};
    #loaded = null;
    #asking = false;
    /** Variants that are on their way to the queue. */
    #onTheirWay = new Set();
    #saving = Promise.resolve();

    /** @param {import("../jobs/list.js").JobList} jobs */
    constructor(jobs) {
        super();
        this.jobs = jobs;
        jobs.addEventListener("change", () => this.#follow());
    }

    /** Read the file, once. */
    load() {
        this.#loaded ??= api.getUserData(FILE).then(async (response) => {
            if (response.status === 200) Object.assign(this, await response.json());
            this.#follow();
            this.#notify();
        });
        return this.#loaded;
    }

    /** Queue a run for each list of changes. Throws ComfyUI's message when it refuses one; those before it stay. */
    async queue(base, lists) {
        await this.load();
        const of = uuid();
        this.bases[of] = base;
        const added = lists.map((changes) => ({ job: uuid(), ledger: "", of, changes, state: "queued", error: "",
            file: null, kept: false, server: "", again: false }));
        this.variants.push(...added);
        await this.#sendAll(added);
    }

    /** Queue those anew that ComfyUI forgot when it was restarted, or that failed. */
    async again() {
        const missing = this.variants.filter(({ state }) => state !== "done" && ENDED.includes(state));
        for (const variant of missing)
            Object.assign(variant, { job: uuid(), ledger: "", state: "queued", error: "", again: false });
        await this.#sendAll(missing);
    }

    /** Take variants out of the list, and their runs out of the queue. Files stay. @param {Variant[]} gone */
    async discard(gone) {
        for (const variant of gone.filter(({ state }) => !ENDED.includes(state)))
            await api.fetchApi(`/jobs/${variant.job}/cancel`, { method: "POST" });
        this.variants = this.variants.filter((variant) => !gone.includes(variant));
        const used = new Set(this.variants.map(({ of }) => of));
        this.bases = Object.fromEntries(Object.entries(this.bases).filter(([key]) => used.has(key)));
        this.#notify();
        await this.save();
    }

    /** Return a variant's workflow, as the canvas takes it. @param {Variant} variant */
    workflow(variant) {
        return changed(this.bases[variant.of], variant.changes).workflow;
    }

    /** Write the file, after what is being written. */
    save() {
        const { variants, bases } = this;
        this.#saving = this.#saving.catch(() => {}).then(() =>
            api.storeUserData(FILE, { variants, bases }, { overwrite: true, stringify: true, throwOnError: true }));
        return this.#saving;
    }

    /** Queue variants of the list, which is written first: a page that is loaded anew meanwhile goes on. */
    async #sendAll(variants) {
        for (const variant of variants) this.#onTheirWay.add(variant);
        this.#notify();
        try {
            await this.save();
            for (const variant of variants) {
                await this.#send(variant);
                this.#onTheirWay.delete(variant);
            }
        } catch (error) {
            // Those that did not reach ComfyUI, or were on their way when the page was left, are sent at a later look.
            if (!(error instanceof TypeError))
                this.variants = this.variants.filter((variant) => !this.#onTheirWay.has(variant));
            throw error;
        } finally {
            for (const variant of variants) this.#onTheirWay.delete(variant);
            this.#notify();
            await this.save();
            await this.jobs.load();
        }
    }

    async #send(variant) {
        const { output, workflow } = changed(this.bases[variant.of], variant.changes);
        const response = await api.fetchApi("/prompt", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ client_id: api.clientId, prompt: output, prompt_id: variant.job,
                extra_data: { extra_pnginfo: { workflow } } }),
        });
        if (response.ok) {
            variant.server = this.jobs.server;
            return;
        }
        const { error, node_errors } = await response.json();
        const first = Object.values(node_errors ?? {})[0]?.errors[0];
        throw new Error(first ? `${first.message}: ${first.details}` : error.message);
    }

    /** Take over what the jobs say. */
    #follow() {
        if (!this.jobs.loaded) return;
        let ended = false;
        const unknown = [];
        for (const variant of this.variants) {
            if (ENDED.includes(variant.state) || this.#onTheirWay.has(variant)) continue;
            const job = [...this.jobs.jobs.values()].find(({ id, run }) =>
                [id, run].includes(variant.job) || (variant.ledger && id === variant.ledger));
            if (job?.remote) variant.ledger = job.id;
            const { server } = this.jobs;
            if (job) Object.assign(variant, { state: job.state, error: job.error, file: job.file, server });
            else unknown.push(variant);
            ended ||= ENDED.includes(variant.state);
        }
        if (ended) this.save();
        this.#notify();
        this.#ask(unknown);
    }

    /**
     * Ask ComfyUI for runs that are not in the list of jobs, which may be older. One that a restart made it forget is
     * queued anew, once: it may be what ended ComfyUI. One that costs money waits for the user, and one that was taken
     * out of the queue stays out.
     */
    async #ask(variants) {
        if (this.#asking) return;
        this.#asking = true;
        try {
            for (const variant of variants) await oneTabAtATime(() => this.#askFor(variant));
        } finally {
            this.#asking = false;
        }
        if (variants.length) await this.save();
        this.#notify();
    }

    async #askFor(variant) {
        const { status } = await api.fetchApi(`/jobs/${variant.job}`).catch(() => ({}));
        if (status !== 404 || !this.variants.includes(variant)) return;
        if (variant.server === this.jobs.server) variant.state = "canceled";
        else if (variant.server && (variant.again || this.#costs(variant))) variant.state = "lost";
        else await this.#sendAgain(variant);
    }

    async #sendAgain(variant) {
        Object.assign(variant, { state: "queued", again: variant.server !== "" });
        try {
            await this.#send(variant);
        } catch (error) {
            if (error instanceof TypeError) return; // ComfyUI is not there: the next look at the jobs tries again
            Object.assign(variant, { state: "failed", error: error.message });
        }
    }

    /** Whether a run has nodes that buy: ours, or ComfyUI's own for paid APIs. */
    #costs(variant) {
        const types = window.LiteGraph.registered_node_types;
        return Object.values(this.bases[variant.of].output).some(({ class_type }) =>
            class_type.startsWith(REMOTE) || types[class_type]?.nodeData?.api_node);
    }

    #notify() {
        this.dispatchEvent(new Event("change"));
    }
}

/** Wait for work that another tab of this browser must not do too: it would not see that the run is queued. */
function oneTabAtATime(work) {
    return navigator.locks ? navigator.locks.request("wan22-variants", work) : work(); // none over plain http
}

/** Return a UUID; over plain http to another machine a page has no crypto.randomUUID. */
function uuid() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
