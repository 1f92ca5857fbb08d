import { app } from "../../../../scripts/app.js";
import { api } from "../../../../scripts/api.js";
import { button, element, setPressed } from "../element.js";
import { progressText, status } from "../jobs/status.js";
import { text } from "../text.js";

/** Milliseconds between two looks at the clips' times, and seconds that one may be off. */
const PACE = 1000;
const OFF = 0.1;

/** The variants as clips that play in step. */
export class VariantGrid {
    #cells = new Map();

    /** @param {import("./list.js").VariantList} list @param {(error: Error) => void} onError */
    constructor(list, onError) {
        this.list = list;
        this.onError = onError;
        this.element = element("ul", { className: "wan22-variants-grid" });
        this.seen = new IntersectionObserver((entries) => {
            for (const { target, isIntersecting } of entries)
                this.#cells.get(target.dataset.job)?.setVisible(isIntersecting);
        }, { rootMargin: "200px" });
        this.pace = setInterval(() => this.#inStep(), PACE);
    }

    /** Show the list as it is. */
    draw() {
        const { variants } = this.list;
        variants.forEach((variant, place) => {
            const cell = this.#cells.get(variant.job) ?? this.#add(variant);
            cell.show(variant);
            const there = this.element.children[place];
            if (there !== cell.element) this.element.insertBefore(cell.element, there ?? null);
        });
        const jobs = new Set(variants.map(({ job }) => job));
        for (const [job, cell] of this.#cells) {
            if (jobs.has(job)) continue;
            cell.setVisible(false);
            cell.element.remove();
            this.#cells.delete(job);
        }
    }

    close() {
        clearInterval(this.pace);
        this.seen.disconnect();
        for (const cell of this.#cells.values()) cell.setVisible(false);
    }

    #add(variant) {
        const cell = new Cell(this.list, variant, this.onError);
        this.#cells.set(variant.job, cell);
        this.seen.observe(cell.element);
        return cell;
    }

    #inStep() {
        const playing = [...this.#cells.values()].map(({ video }) => video).filter(({ readyState }) => readyState > 2);
        for (const video of playing.slice(1))
            if (Math.abs(video.currentTime - playing[0].currentTime) > OFF) video.currentTime = playing[0].currentTime;
    }
}

/** One variant: its clip, what is different in it, and what can be done with it. */
class Cell {
    constructor(list, variant, onError) {
        this.list = list;
        this.video = element("video", { muted: true, loop: true, playsInline: true, preload: "metadata" });
        this.state = element("div", { className: "wan22-variants-state" });
        this.link = element("a", { className: "wan22-variants-clip", target: "_blank", rel: "noopener" },
            this.video, this.state);
        this.keep = button("star", text("variants.keep"), () => {
            this.variant.kept = !this.variant.kept;
            this.show(this.variant);
            list.save().catch(onError);
        });
        this.bar = element("div", { className: "wan22-variants-actions" }, this.keep,
            button("sitemap", text("variants.workflow"), () =>
                app.loadGraphData(list.workflow(this.variant), true, true, text("variants.name"))),
            button("trash", text("variants.discard"), () => list.discard([this.variant]).catch(onError)));
        const words = variant.changes.map(({ label, value }) => `${label}: ${value}`).join("\n");
        const changes = element("div", { className: "wan22-variants-changes", title: words }, words);
        this.element = element("li", { className: "wan22-variants-cell", "data-job": variant.job },
            this.link, changes, this.bar);
    }

    /** @param {import("./list.js").Variant} variant */
    show(variant) {
        this.variant = variant;
        const { jobs } = this.list.jobs;
        const job = jobs.get(variant.job) ?? jobs.get(variant.ledger) ?? { ...variant, remote: false, provider: "" };
        const [word] = variant.state === "lost" ? [text("variants.lost")] : status({ ...job, state: variant.state });
        this.state.textContent = variant.file ? "" : variant.error || progressText(job) || word;
        this.element.dataset.state = variant.state;
        this.element.classList.toggle("wan22-variants-kept", variant.kept);
        setPressed(this.keep, variant.kept);
        this.#fill();
    }

    setVisible(is) {
        this.visible = is;
        this.#fill();
    }

    #fill() {
        const url = this.variant?.file && api.apiURL(`/view?${new URLSearchParams(this.variant.file)}`);
        if (url) this.link.href = url;
        if (url && this.visible && this.video.getAttribute("src") !== url) {
            this.video.src = url;
            if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.video.play().catch(() => {});
        } else if (!this.visible && this.video.hasAttribute("src")) {
            this.video.removeAttribute("src");
            this.video.load();
        }
    }
}
