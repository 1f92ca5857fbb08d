import { text } from "../text.js";

/** A new element with these properties and children. */
export function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

/** A field of one line. */
export function field(label, properties = {}) {
    return element("input", {
        type: "text", className: "wan22-settings-field", ariaLabel: label, autocomplete: "off", spellcheck: false,
        ...properties,
    });
}

/** A button. */
export function button(words, properties = {}) {
    return element("button", { type: "button", className: "wan22-settings-button", textContent: words, ...properties });
}

/** A row's controls, and to their left a line that says how the setting stands or what went wrong. */
export class Row {
    #line = element("span", { className: "wan22-settings-line", role: "status" });
    #state = { words: "", isFault: false };
    #refused = false;

    constructor(...controls) {
        this.controls = controls;
        this.element = element("div", { className: "wan22-settings-row" }, this.#line, ...controls);
    }

    /**
     * How the setting stands; not seen before what was refused has been put right. The same words as before do not take
     * the place of how the work went: what another row has changed is no news here.
     */
    state(words, isFault = false) {
        const isNews = words !== this.#state.words;
        this.#state = { words, isFault };
        if (isNews && !this.#refused) this.#say(words, isFault);
    }

    /** The row cannot be used as long as the server does not answer, for this reason. */
    lock(fault) {
        for (const control of this.controls) control.disabled = true;
        this.state(fault, true);
    }

    /** Do what the user asked for, and say how it went; done: "" has the state say it. Returns whether it was done. */
    async work(task, done = text("settings.saved")) {
        try {
            await task();
            this.#refused = false;
            this.#say(done || this.#state.words, false);
        } catch (error) {
            this.#refused = true;
            this.#say(error.message, true);
        }
        return !this.#refused;
    }

    #say(words, isFault) {
        this.#line.textContent = words;
        this.#line.title = words;
        this.#line.classList.toggle("wan22-settings-fault", isFault);
    }
}
