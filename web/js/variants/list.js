import { api } from "../../../../scripts/api.js";
import { confirmStop, stopRun } from "../jobs/actions.js";
import { request } from "../server.js";
import { text } from "../text.js";
import { changed } from "./axes.js";
import { takeOver } from "./merge.js";

const FILE = "wan22/variants.json";
const ENDED = ["done", "failed", "canceled", "lost"];
const REMOTE = "Wan22Remote";
/** Runs that are asked for at once: their ids have to fit into an address. */
const ASKED = 100;

/**
 * One clip. job: the run's id. ledger: the remote job's that it became, or "". of: the workflow it changes, a key of
 * VariantList.bases. server: the JobList's when it was queued, "" before. again: whether it was queued anew after a
 * restart.
 * @typedef {{job: string, ledger: string, of: string, changes: import("./axes.js").Change[], state: string,
 *   error: string, file: ?object, kept: boolean, server: string, again: boolean}} Variant
 */

/**
 * The variants that were queued and not discarded. They are kept in the user's folder, in a file that several pages may
 * have open. Dispatches "change", and "fault" with an error as its detail for what went wrong while nobody waited.
 */
export class VariantList extends EventTarget {
    /** @type {Variant[]} */
    variants = [];
    /** Workflows, by a key of their own. */
    bases = {};
    /** Variants as the file had them when this page last read or wrote it. */
    #inFile = [];
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

    /** Read the file, once; again after it could not be read. */
    load() {
        this.#loaded ??= this.#read().then(() => this.#follow()).catch((error) => {
            this.#loaded = null;
            throw error;
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
        await this.#read(); // another page may have done it
        const missing = this.variants.filter(({ state }) => state !== "done" && ENDED.includes(state));
        for (const variant of missing)
            Object.assign(variant, { job: uuid(), ledger: "", state: "queued", error: "", server: "", again: false });
        await this.#sendAll(missing);
    }

    /**
     * Take variants out of the list, and their runs out of the queue, after the user has confirmed the consequences.
     * Files stay. Throws when a run could not be stopped: its variant stays, too.
     * @param {Variant[]} gone
     */
    async discard(gone) {
        const hasRun = (variant) => !ENDED.includes(variant.state) && !this.#onTheirWay.has(variant);
        const jobs = await this.#becameOf(gone.filter(hasRun));
        if (!(await confirmStop(Object.values(jobs.runs).filter(({ run }) => run)))) return;
        try {
            for (const variant of gone) {
                if (hasRun(variant)) await stopRun(variant.job); // one on its way is stopped by what sends it
                this.variants = this.variants.filter((one) => one !== variant);
            }
        } finally {
            this.#dropBases();
            this.#notify();
            await this.save();
        }
    }

    /** Return a variant's workflow, as the canvas takes it. @param {Variant} variant */
    workflow(variant) {
        return changed(this.bases[variant.of], variant.changes).workflow;
    }

    /** Write the file, after what is being written, with what other pages wrote into it. */
    save() {
        return this.#withFile(async () => {
            await this.#merge();
            const written = JSON.stringify({ variants: this.variants, bases: this.bases });
            await api.storeUserData(FILE, written, { overwrite: true, stringify: false, throwOnError: true });
            this.#inFile = JSON.parse(written).variants;
        });
    }

    #read() {
        return this.#withFile(() => this.#merge());
    }

    #withFile(work) {
        this.#saving = this.#saving.catch(() => {}).then(() => oneTabAtATime("wan22-variants-file", work));
        return this.#saving;
    }

    /** Take over what other pages did to the file. */
    async #merge() {
        const response = await api.getUserData(FILE, { cache: "no-store" });
        if (response.status !== 200 && response.status !== 404) // only the latter means that there is none yet
            throw new Error(text("variants.unread", { status: `${response.status} ${response.statusText}` }));
        const { variants, bases } = response.status === 200 ? await response.json() : { variants: [], bases: {} };
        this.bases = { ...bases, ...this.bases };
        this.variants = takeOver(variants, this.#inFile, this.variants);
        this.#inFile = structuredClone(variants);
        this.#dropBases();
        this.#notify();
    }

    #dropBases() {
        const used = new Set([...this.variants, ...this.#onTheirWay].map(({ of }) => of));
        this.bases = Object.fromEntries(Object.entries(this.bases).filter(([key]) => used.has(key)));
    }

    /** Queue variants of the list, which is written first: a page that is loaded anew meanwhile goes on. */
    async #sendAll(variants) {
        const waiting = new Set(variants);
        for (const variant of variants) this.#onTheirWay.add(variant);
        this.#notify();
        try {
            await oneTabAtATime("wan22-variants", async () => {
                try {
                    await this.save();
                    for (const variant of variants) {
                        await this.#send(variant);
                        waiting.delete(variant);
                        this.#onTheirWay.delete(variant);
                    }
                } catch (error) {
                    // Those that did not reach ComfyUI, or were on their way when the page was left, are sent later.
                    if (!(error instanceof TypeError))
                        this.variants = this.variants.filter((variant) => !waiting.has(variant));
                    throw error;
                } finally {
                    for (const variant of variants) this.#onTheirWay.delete(variant);
                    this.#notify();
                    await this.save(); // before another page looks for runs that are not in the queue
                }
            });
        } finally {
            await this.jobs.load();
        }
    }

    /** Queue a variant, unless it was discarded; one that is discarded meanwhile is taken out of the queue again. */
    async #send(variant) {
        if (!this.variants.includes(variant)) return;
        await this.#post(variant);
        if (this.variants.includes(variant)) return;
        try {
            await stopRun(variant.job);
        } catch (error) {
            this.variants.push(variant); // it goes on, and is to be seen
            this.#fault(error);
        }
    }

    async #post(variant) {
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
        let isNew = false;
        const unknown = [];
        for (const variant of this.variants) {
            if (ENDED.includes(variant.state) || this.#onTheirWay.has(variant)) continue;
            const job = [...this.jobs.jobs.values()].find(({ id, run }) =>
                [id, run].includes(variant.job) || (variant.ledger && id === variant.ledger));
            if (job) isNew = this.#apply(variant, job, this.jobs.server) || isNew;
            else unknown.push(variant);
        }
        if (isNew) this.#saveLater();
        this.#notify();
        this.#ask(unknown).catch((error) => this.#fault(error));
    }

    /** Take over what a job says. Returns whether that has to be written: a state that passes need not. */
    #apply(variant, job, server) {
        const before = [variant.ledger, variant.server].join();
        if (job.remote) variant.ledger = job.id;
        Object.assign(variant, { state: job.state, error: job.error, file: job.file, server });
        return ENDED.includes(job.state) || before !== [variant.ledger, variant.server].join();
    }

    /**
     * Ask for runs that are not in the list of jobs, which may be older, or stand back for a remote job that ended. One
     * that a restart made ComfyUI forget is queued anew, once: it may be what ended ComfyUI. One that costs money waits
     * for the user, and one that was taken out of the queue stays out.
     */
    async #ask(variants) {
        if (this.#asking || !variants.length) return;
        this.#asking = true;
        try {
            for (let first = 0; first < variants.length; first += ASKED) {
                const asked = variants.slice(first, first + ASKED);
                await oneTabAtATime("wan22-variants", () => this.#askFor(asked));
            }
        } catch (error) {
            if (!(error instanceof TypeError)) throw error; // else ComfyUI is not there: asked at a later look
        } finally {
            this.#asking = false;
        }
    }

    async #askFor(variants) {
        const isOpen = (variant) => this.variants.includes(variant) && !ENDED.includes(variant.state);
        const { runs, server } = await this.#becameOf(variants);
        if (variants.some(({ job }) => !runs[job])) await this.#read(); // another page may have discarded it
        let isNew = false;
        for (const variant of variants.filter(isOpen)) {
            const job = runs[variant.job];
            if (job) isNew = this.#apply(variant, job, server) || isNew;
            else {
                await this.#missing(variant, server);
                isNew = true;
            }
        }
        this.#notify();
        if (isNew) await this.save();
    }

    /** Act on a run that nobody knows. */
    async #missing(variant, server) {
        if (variant.server === server) variant.state = "canceled";
        else if (variant.server && (variant.again || this.#costs(variant))) variant.state = "lost";
        else await this.#sendAgain(variant);
    }

    async #sendAgain(variant) {
        Object.assign(variant, { state: "queued", again: variant.server !== "" });
        this.#onTheirWay.add(variant);
        try {
            await this.#send(variant);
        } catch (error) {
            if (error instanceof TypeError) return; // ComfyUI is not there: the next look at the jobs tries again
            Object.assign(variant, { state: "failed", error: error.message });
        } finally {
            this.#onTheirWay.delete(variant);
        }
    }

    /** Return {runs: the run's id -> its job, server}; without the runs that nobody knows. */
    async #becameOf(variants) {
        const answer = { runs: {}, server: "" };
        for (let first = 0; first < variants.length; first += ASKED) {
            const names = variants.slice(first, first + ASKED).map(({ job }) => job);
            const { runs, server } = await request(`jobs?runs=${names}`);
            Object.assign(answer.runs, runs);
            answer.server = server;
        }
        return answer;
    }

    /** Whether a run has nodes that buy: ours, or ComfyUI's own for paid APIs. */
    #costs(variant) {
        const types = window.LiteGraph.registered_node_types;
        return Object.values(this.bases[variant.of].output).some(({ class_type }) =>
            class_type.startsWith(REMOTE) || types[class_type]?.nodeData?.api_node);
    }

    #saveLater() {
        this.save().catch((error) => this.#fault(error));
    }

    #fault(error) {
        this.dispatchEvent(new CustomEvent("fault", { detail: error }));
    }

    #notify() {
        this.dispatchEvent(new Event("change"));
    }
}

/** Wait for work that another tab of this browser must not do at the same time. */
function oneTabAtATime(name, work) {
    return navigator.locks ? navigator.locks.request(name, work) : work(); // none over plain http
}

/** Return a UUID; over plain http to another machine a page has no crypto.randomUUID. */
function uuid() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
