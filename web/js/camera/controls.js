import { button, element, relabel, setPressed } from "../element.js";
import { text } from "../text.js";
import { EASINGS, limited } from "./path.js";

/** What is below the stage: playing, keyframes, presets, easing, and the path's numbers to type. */
export class Controls {
    /**
     * @param {import("./camera.js").camera} moving
     * @param {HTMLElement} timeline
     * @param {object} on called when the user wants something
     * @param {() => void} on.play
     * @param {() => void} on.keyframe adds one, or removes the one that is shown
     * @param {() => void} on.look
     * @param {(path: string) => void} on.preset
     * @param {(easing: string) => void} on.easing
     * @param {(name: string, value: number) => void} on.number
     * @param {Promise<{name: string, path: object}[]>} presets
     */
    constructor(moving, timeline, on, presets) {
        this.playing = button("play", text("camera.play"), on.play);
        this.count = element("output", { "aria-live": "off" });
        this.keyed = button("plus-circle", text("camera.add"), on.keyframe);
        this.looking = button("eye", text("camera.look"), on.look);
        this.presets = element("select", { hidden: true, title: text("camera.preset"),
            "aria-label": text("camera.preset") }, new Option(text("camera.preset"), "", true, true));
        this.presets.addEventListener("change", () => {
            on.preset(this.presets.value);
            this.presets.value = "";
        });
        presets.then((found) => {
            this.presets.hidden = !found.length;
            this.presets.append(...found.map(({ name, path }) => new Option(presetName(name), JSON.stringify(path))));
        });
        this.easing = element("select", { title: text("camera.easing"), "aria-label": text("camera.easing") },
            ...Object.keys(EASINGS).map((name) => new Option(text(`camera.easings.${name}`), name)));
        this.easing.addEventListener("change", () => on.easing(this.easing.value));
        /** The field whose number is typed and not yet taken, which nothing else may overwrite. */
        this.edited = null;
        const steps = { t: 0.01, ...moving.fields, ...(moving.kind.settings.includes("fov") && { fov: 1 }) };
        this.numbers = Object.entries(steps).map(([name, step]) => {
            const title = text(`camera.numbers.${name}`);
            const input = element("input", { type: "number", step, name, title, "aria-label": title });
            input.addEventListener("input", () => (this.edited = input));
            input.addEventListener("change", () => {
                this.edited = null;
                on.number(name, input.valueAsNumber);
            });
            input.addEventListener("blur", () => (this.edited = null));
            return input;
        });
        this.help = element("small");
        this.said = element("output", { className: "wan22-camera-said", "aria-live": "polite" });
        this.element = element("div", { className: "wan22-controls-bar" },
            element("div", { className: "wan22-controls-row" }, this.playing, timeline, this.count),
            element("div", { className: "wan22-controls-row" }, this.keyed, this.looking, this.presets, this.easing),
            element("div", { className: "wan22-camera-numbers" }, ...this.numbers.map((input) =>
                element("label", {}, element("span", { textContent: input.name, "aria-hidden": "true" }), input))),
            this.help, this.said);
        setPressed(this.looking, false);
    }

    /** Let nothing be changed but by a preset, which is there to start anew. isLinked: nothing at all. */
    setOff(isOff, isLinked) {
        if (isOff) this.edited = null;
        for (const part of [this.playing, this.looking, this.keyed, this.easing, ...this.numbers])
            part.disabled = isOff;
        this.presets.disabled = isLinked;
    }

    /**
     * Show where the path is.
     * @param {object} now
     * @param {Record<string, number>} now.view numbers of the place, and fov
     * @param {string} now.frame
     * @param {boolean} now.isKeyframe
     * @param {boolean} now.isOnly the path has one keyframe
     * @param {string} now.easing
     */
    show({ view, frame, isKeyframe, isOnly, easing }) {
        this.count.textContent = frame;
        relabel(this.keyed, isKeyframe ? "minus-circle" : "plus-circle",
            text(isKeyframe ? "camera.remove" : "camera.add"));
        this.keyed.disabled = isKeyframe && isOnly;
        this.easing.value = easing;
        for (const input of this.numbers) {
            const value = limited(input.name, view[input.name]);
            if (input !== this.edited && input.valueAsNumber !== value) input.value = value;
        }
    }

    setPlaying(isPlaying) {
        relabel(this.playing, isPlaying ? "pause" : "play", text(isPlaying ? "camera.pause" : "camera.play"));
    }

    setLooking(isLooking) {
        setPressed(this.looking, isLooking);
    }

    /** Say the numbers of a place to a screen reader. */
    say(view) {
        this.said.textContent = this.numbers.filter(({ name }) => name !== "fov")
            .map(({ name }) => `${name} ${limited(name, view[name])}`).join(", ");
    }
}

function presetName(name) {
    const key = `camera.presets.${name}`;
    const found = text(key);
    return found === key ? name : found;
}
