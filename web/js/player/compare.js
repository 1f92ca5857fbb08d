import { text } from "../text.js";
import { button, element, setPressed } from "../element.js";

/** The controls that choose a second clip and the layout of both. */
export class Compare {
    /**
     * @param {import("./stage.js").Stage} stage
     * @param {() => {name: string, clip: object}[]} others returns the clips to choose from
     */
    constructor(stage, others) {
        this.stage = stage;
        this.others = others;
        this.button = button("images", text("player.compare"), () => this.#open(this.bar.hidden));
        this.choice = element("select", { title: text("player.with"), "aria-label": text("player.with") });
        for (const event of ["pointerdown", "focus"]) this.choice.addEventListener(event, () => this.#list());
        this.choice.addEventListener("change", () => stage.compare(this.choice.selectedOptions[0].clip ?? null));
        this.view = element("select", { title: text("player.view"), "aria-label": text("player.view") },
            ...["side", "wipe"].map((view) => new Option(text(`player.${view}`), view)));
        this.view.addEventListener("change", () => stage.setLayout(this.view.value));
        this.bar = element("div", { className: "wan22-controls-row", hidden: true }, this.choice, this.view);
        this.wipe = element("input", { type: "range", min: 0, max: 1, step: "any", value: 0.5,
            className: "wan22-player-wipe", "aria-label": text("player.wipe-at") });
        this.wipe.addEventListener("input", () => stage.setWipe(this.wipe.value));
        stage.element.append(this.wipe, element("i"));
        stage.setWipe(0.5);
        setPressed(this.button, false);
    }

    #open(isOpen) {
        this.bar.hidden = !isOpen;
        setPressed(this.button, isOpen);
        this.#list();
        this.stage.compare((isOpen && this.choice.options[0].clip) || null);
    }

    /** Update the choices; the clip that is shown stays selected. */
    #list() {
        const shown = this.stage.second.clip;
        const others = this.others();
        if (shown && others.every(({ clip }) => clip.id !== shown.id)) others.push({ name: shown.name, clip: shown });
        const options = others.map(({ name, clip }) => {
            const isShown = clip.id === shown?.id;
            return Object.assign(new Option(name, clip.id, isShown, isShown), { clip });
        });
        this.choice.replaceChildren(...(options.length ? options : [new Option(text("player.none"), "")]));
    }
}
