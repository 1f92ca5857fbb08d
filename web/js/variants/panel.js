import { element } from "../element.js";
import { text } from "../text.js";
import { VariantForm } from "./form.js";
import { VariantGrid } from "./grid.js";

/** The sidebar tab: a form for new variants, and the grid of those that were queued. */
export class VariantPanel {
    /** @param {import("./list.js").VariantList} list @param {(error: Error) => void} onError */
    constructor(list, onError) {
        this.list = list;
        this.form = new VariantForm(list, onError);
        this.grid = new VariantGrid(list, onError);
        const act = (label, work) => element("button", { type: "button", className: "wan22-variants-action",
            onclick: () => work().catch(onError) }, label);
        this.again = act(text("variants.again"), () => list.again());
        this.clear = act(text("variants.clear"), () => list.discard(list.variants.filter(({ kept }) => !kept)));
        this.made = element("span", { className: "wan22-variants-made" });
        this.element = element("section", { className: "wan22-variants", "aria-label": text("variants.title") },
            element("h2", {}, text("variants.title")), this.form.element,
            element("div", { className: "wan22-variants-row" }, this.made, this.again, this.clear), this.grid.element);
        this.draw = () => this.#draw();
        list.addEventListener("change", this.draw);
        this.form.read();
        this.#draw();
    }

    close() {
        this.list.removeEventListener("change", this.draw);
        this.grid.close();
        this.element.remove();
    }

    #draw() {
        const { variants } = this.list;
        const count = (...states) => variants.filter(({ state }) => states.includes(state)).length;
        const made = { made: count("done"), count: variants.length };
        this.made.textContent = variants.length ? text("variants.made", made) : "";
        this.again.hidden = count("lost", "failed", "canceled") === 0;
        this.clear.hidden = !variants.some(({ kept }) => !kept);
        this.grid.draw();
    }
}
