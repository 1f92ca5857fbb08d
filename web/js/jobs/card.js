import { text } from "../text.js";
import { fileUrl, cancel, copyRequest, loadWorkflow, resume, settle, toast } from "./actions.js";
import { duration, isResumable, isUnknown, price, progressText, status, createdAt } from "./status.js";

/** @typedef {import("./list.js").Job} Job */

const PICTURE = /\.(png|jpe?g|webp|gif)$/i;

/** One job in the list. */
export class JobCard {
    #shown = "";
    #inView = false;

    /** @param {import("./list.js").JobList} list */
    constructor(list) {
        this.list = list;
        this.element = make("li", "wan22-jobs-card");
        this.thumb = make("a", "wan22-jobs-thumb");
        this.state = make("span", "wan22-jobs-state");
        this.facts = make("span", "wan22-jobs-facts");
        this.prompt = make("div", "wan22-jobs-prompt");
        this.bar = make("div", "wan22-jobs-bar");
        this.bar.append(make("div", ""));
        this.note = make("div", "wan22-jobs-note");
        this.actions = make("div", "wan22-jobs-actions");
        const texts = make("div", "wan22-jobs-texts");
        texts.append(this.state, this.prompt, this.facts);
        this.element.append(this.thumb, texts, this.bar, this.note, this.actions);
    }

    /** @param {Job} job */
    show(job) {
        const now = JSON.stringify(job);
        if (now === this.#shown) return;
        const file = JSON.stringify(this.job?.file);
        [this.#shown, this.job] = [now, job];
        const [statusText, tone] = status(job);
        this.element.dataset.state = job.state;
        this.element.dataset.tone = tone;
        this.element.dataset.job = job.id;
        this.state.textContent = statusText;
        this.prompt.textContent = job.prompt || text(job.remote ? "jobs.noPrompt" : "jobs.localRun");
        this.prompt.title = job.prompt;
        this.note.textContent = job.error || progressText(job);
        this.note.title = job.error;
        this.#showBar(tone);
        this.tick();
        this.#showActions();
        if (!this.thumb.firstChild || JSON.stringify(job.file) !== file) this.#showThumb();
    }

    /** Update the time that has passed. */
    tick() {
        const job = this.job;
        const facts = [job.provider || text("jobs.here"), duration(job, this.list.now()), price(job), createdAt(job)];
        const line = facts.filter(Boolean).map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");
        if (this.facts.textContent !== line) this.facts.textContent = line;
        this.facts.title = [job.model, job.price_source].filter(Boolean).join("\n");
    }

    /** Load the clip's first frame while it is in view: a browser keeps a few dozen videos at most. */
    set inView(is) {
        if (is === this.#inView) return;
        this.#inView = is;
        this.#fill();
    }

    #showBar(tone) {
        const { progress, run } = this.job;
        const known = run && progress?.max > 1;
        this.bar.hidden = tone !== "busy";
        this.bar.classList.toggle("wan22-jobs-bar-unknown", !known);
        this.bar.firstChild.style.width = known ? `${(100 * progress.value) / progress.max}%` : "";
        this.bar.setAttribute("role", "progressbar");
        this.bar.setAttribute("aria-label", this.state.textContent);
        if (known) this.bar.setAttribute("aria-valuenow", Math.round((100 * progress.value) / progress.max));
        else this.bar.removeAttribute("aria-valuenow");
    }

    #showThumb() {
        const { file } = this.job;
        if (!file) {
            for (const name of ["href", "title", "aria-label"]) this.thumb.removeAttribute(name);
            this.thumb.replaceChildren(make("i", "pi pi-video"));
            return;
        }
        this.#linkToFile(this.thumb);
        const picture = PICTURE.test(file.filename);
        const still = make(picture ? "img" : "video", "");
        if (picture) still.alt = "";
        else Object.assign(still, { muted: true, loop: true, playsInline: true, preload: "metadata", tabIndex: -1 });
        this.thumb.replaceChildren(still);
        this.thumb.onmouseenter = this.thumb.onfocus = () => still.play?.().catch(() => {});
        this.thumb.onmouseleave = this.thumb.onblur = () => still.pause?.();
        this.#fill();
    }

    #fill() {
        const still = this.thumb.firstChild;
        if (!this.job?.file || !still) return;
        if (this.#inView) still.src = fileUrl(this.job);
        else if (still.hasAttribute("src")) {
            still.removeAttribute("src");
            still.load?.();
        }
    }

    #showActions() {
        const job = this.job;
        const others = () => [...this.list.jobs.values()].filter((one) => one.run && one.run === job.run).length - 1;
        const buttons = [
            job.run && this.#button("cancel", "pi-times", text("jobs.cancel.label"), () => cancel(job, others())),
            isResumable(job) && this.#button("resume", "pi-play",
                text(isUnknown(job) ? "jobs.resume.look" : "jobs.resume.label"), () => resume(job)),
            isUnknown(job) && this.#button("settle", "pi-question-circle", text("jobs.settle.label"),
                () => settle(job)),
            job.workflow && this.#button("workflow", "pi-sitemap", text("jobs.workflow.label"),
                () => loadWorkflow(job), true),
            this.#button("copy", "pi-copy", text("jobs.copy"), () => copyRequest(job), true),
        ].filter(Boolean);
        if (job.file) buttons.push(this.#link());
        const focused = this.actions.contains(document.activeElement) && document.activeElement.dataset.action;
        this.actions.replaceChildren(...buttons);
        if (focused) this.actions.querySelector(`[data-action=${focused}]`)?.focus();
    }

    #link() {
        const link = make("a", "wan22-jobs-action wan22-jobs-icon");
        this.#linkToFile(link);
        link.dataset.action = "open";
        link.append(make("i", "pi pi-external-link"));
        return link;
    }

    #linkToFile(link) {
        const title = text("jobs.open");
        Object.assign(link, { href: fileUrl(this.job), target: "_blank", rel: "noopener", title });
        link.setAttribute("aria-label", title);
    }

    #button(action, icon, label, work, small = false) {
        const button = make("button", `wan22-jobs-action${small ? " wan22-jobs-icon" : ""}`);
        Object.assign(button, { type: "button", title: label });
        button.dataset.action = action;
        button.setAttribute("aria-label", label);
        button.append(make("i", `pi ${icon}`), ...(small ? [] : [label]));
        button.onclick = async () => {
            button.disabled = true;
            try {
                await work();
                await this.list.refresh();
            } catch (error) {
                toast("error", label, error instanceof TypeError ? text("jobs.gone") : error.message);
            }
            button.disabled = false;
        };
        return button;
    }
}

/** Return a new element. */
export function make(tag, className) {
    return Object.assign(document.createElement(tag), { className });
}
