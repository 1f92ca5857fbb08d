import { app } from "../../../../scripts/app.js";
import { button, element } from "../element.js";
import { readInputs } from "../node_inputs.js";
import { INPUTS } from "../quote_inputs.js";
import { request } from "../server.js";
import { text } from "../text.js";
import { combinations, findAxes, valuesOf } from "./axes.js";

const PRICED = "Wan22RemoteImageToVideo";
/** Clips that may be queued at once. */
const MOST = 100;

/** Where the inputs to vary are chosen. */
export class VariantForm {
    /** @param {import("./list.js").VariantList} list @param {(error: Error) => void} onError */
    constructor(list, onError) {
        this.list = list;
        this.onError = onError;
        this.axes = [];
        this.rows = [];
        this.choice = element("select", { "aria-label": text("variants.input") });
        this.choice.onfocus = this.choice.onpointerdown = () => this.read();
        this.choice.onchange = () => this.#add(this.choice.value);
        this.fields = element("div", { className: "wan22-variants-fields" });
        this.total = element("output", { className: "wan22-variants-total" });
        this.run = element("button", { type: "button", className: "wan22-variants-run", onclick: () => this.#queue() },
            text("variants.queue"));
        this.element = element("form", { className: "wan22-variants-form", onsubmit: () => false }, this.choice,
            this.fields, element("div", { className: "wan22-variants-row" }, this.total, this.run));
        this.#offer();
        this.count();
    }

    /** Read the open workflow. */
    async read() {
        this.base = await app.graphToPrompt();
        this.axes = findAxes(this.base.output);
        this.#offer();
    }

    /** Say how many clips there will be, how long they take and what they cost. */
    async count() {
        const lists = this.lists();
        this.run.disabled = lists.length === 0 || lists.length > MOST;
        if (!this.rows.length) this.total.textContent = text("variants.none");
        else if (lists.length > MOST) {
            this.total.textContent = text("variants.tooMany", { count: lists.length, most: MOST });
        } else {
            const parts = [text("variants.count", { count: lists.length }), this.#time(lists.length)];
            this.total.textContent = parts.filter(Boolean).join(" · ");
            const money = await this.#money(lists.length);
            if (money && this.lists().length === lists.length)
                this.total.textContent = [...parts, money].filter(Boolean).join(" · ");
        }
    }

    /** @returns {import("./axes.js").Change[][]} */
    lists() {
        const chosen = this.rows.map(({ axis, values }) => ({ axis, values: values(axis) }));
        return chosen.length ? combinations(chosen) : [];
    }

    #offer() {
        const groups = new Map();
        for (const axis of this.axes.filter(({ key }) => !this.rows.some((row) => row.axis.key === key))) {
            if (!groups.has(axis.node)) groups.set(axis.node, element("optgroup", { label: axis.title }));
            groups.get(axis.node).append(new Option(axis.label, axis.key));
        }
        this.choice.replaceChildren(new Option(text("variants.add"), ""), ...groups.values());
    }

    #add(key) {
        const axis = this.axes.find((one) => one.key === key);
        if (!axis) return;
        const { field, values } = fieldOf(axis);
        field.setAttribute("aria-label", `${axis.title}: ${axis.label}`);
        field.oninput = () => this.count();
        const row = { axis, values };
        const remove = button("times", text("variants.remove"), () => {
            this.rows = this.rows.filter((one) => one !== row);
            line.remove();
            this.#offer();
            this.count();
        });
        const line = element("div", { className: "wan22-variants-axis" },
            element("span", {}, `${axis.title}: ${axis.label}`), remove, field);
        this.rows.push(row);
        this.fields.append(line);
        this.#offer();
        this.count();
        field.focus();
    }

    #time(count) {
        const seconds = [...this.list.jobs.jobs.values()].filter((job) => !job.remote && job.state === "done")
            .map(({ began, ended }) => ended - began).filter(Number.isFinite).slice(0, 9).sort((a, b) => a - b);
        if (!seconds.length) return "";
        const minutes = (count * seconds[Math.floor(seconds.length / 2)]) / 60;
        return text("variants.minutes", { minutes: minutes < 10 ? minutes.toFixed(1) : Math.round(minutes) });
    }

    async #money(count) {
        const nodes = app.graph.nodes.filter(({ type, id }) => type === PRICED && this.base.output[id]);
        if (!nodes.length) return "";
        const quotes = await Promise.all(nodes.map((node) =>
            request("quote", { method: "POST", body: readInputs(node, INPUTS) }).catch(() => ({}))));
        if (quotes.some(({ price }) => price == null)) return text("variants.noPrice");
        const dollars = count * quotes.reduce((sum, { price }) => sum + price, 0);
        return text("variants.dollars", { dollars: dollars.toFixed(2) });
    }

    async #queue() {
        this.run.disabled = true;
        try {
            await this.read(); // as it is now, with whatever else was changed
            const found = this.rows.map(({ axis }) => this.axes.find(({ key }) => key === axis.key));
            if (!found.every(Boolean)) throw new Error(text("variants.changed"));
            this.rows.forEach((row, n) => (row.axis = found[n])); // seeds are counted up from the one of now
            await this.list.queue({ output: this.base.output, workflow: this.base.workflow }, this.lists());
        } catch (error) {
            this.onError(error);
        }
        this.count();
    }
}

/** Return a field for an axis, and a function that returns its values for the axis as it is by then. */
function fieldOf(axis) {
    if (axis.kind === "choices") {
        const field = element("select", { multiple: true, size: Math.min(6, Math.max(2, axis.choices.length)) });
        field.append(...axis.choices.map((value, n) => new Option(String(value), n, false, value === axis.value)));
        return { field, values: () => [...field.selectedOptions].map((option) => axis.choices[option.value]) };
    }
    const start = { seeds: "4", lines: String(axis.value), numbers: String(axis.value) }[axis.kind];
    const field = axis.kind === "lines" ? element("textarea", { rows: 4, value: start, title: text("variants.lines") })
        : element("input", { value: start, title: text(`variants.${axis.kind}`), inputMode: "decimal" });
    return { field, values: (now) => valuesOf(now, field.value) };
}
