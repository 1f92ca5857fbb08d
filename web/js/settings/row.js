import { text } from "../text.js";

/** Return a new element with these properties and children. */
export function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

/** Return a text field of one line. */
export function field(label, properties = {}) {
    return element("input", {
        type: "text", className: "wan22-settings-field", ariaLabel: label, autocomplete: "off", spellcheck: false,
        ...properties,
    });
}

/** Return a button. */
export function button(label, properties = {}) {
    return element("button", { type: "button", className: "wan22-settings-button", textContent: label, ...properties });
}

/** A row's controls, and to their left a line with the setting's status or an error. */
export class Row {
    #line = element("span", { className: "wan22-settings-line", role: "status" });
    #status = { message: "", isFault: false };
    #refused = false;

    constructor(...controls) {
        this.controls = controls;
        this.element = element("div", { className: "wan22-settings-row" }, this.#line, ...controls);
    }

    /**
     * Set the status. An error stays until it is corrected, and an unchanged status does not replace the result of the
     * last work: it only means that another row has changed.
     */
    setStatus(message, isFault = false) {
        const isNew = message !== this.#status.message;
        this.#status = { message, isFault };
        if (isNew && !this.#refused) this.#show(message, isFault);
    }

    /** Disable the controls while the server does not answer, and show why. */
    lock(fault) {
        for (const control of this.controls) control.disabled = true;
        this.setStatus(fault, true);
    }

    /** Do what the user asked for, and show the result; done: "" shows the status. Return whether it succeeded. */
    async work(task, done = text("settings.saved")) {
        try {
            await task();
            this.#refused = false;
            this.#show(done || this.#status.message, false);
        } catch (error) {
            this.#refused = true;
            this.#show(error.message, true);
        }
        return !this.#refused;
    }

    #show(message, isFault) {
        this.#line.textContent = message;
        this.#line.title = message;
        this.#line.classList.toggle("wan22-settings-fault", isFault);
    }
}
