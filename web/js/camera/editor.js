import { button, element, relabel, setPressed } from "../element.js";
import { text } from "../text.js";
import { between, EASINGS, formatPath, frameAt, indexAt, limited, parsePath, placeAt, withKeyframe } from "./path.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";

/** Frames a second of a clip of Wan 2.2. */
const RATE = 16;
/** Pixels, as in camera.css: range of the picture's height, and the gap below it. */
const MIN_STAGE = 180;
const MAX_STAGE = 420;
const GAP = 4;
/** Milliseconds without a key or a turn of the wheel after which the next ones are another step of undo. */
const BURST = 500;
/** Distance on the timeline at which a keyframe attracts the place that is shown. */
const ATTRACTION = 0.012;

/**
 * The editor of a path: a picture to draw on, a timeline, and everything as numbers.
 *
 * It shows the text that it is given with setText, and writes each change of the user as text.
 */
export class Editor {
    /**
     * @param {typeof import("./camera.js").camera} moving what moves
     * @param {object} node
     * @param {(text: string) => void} node.write called with the path after each change
     * @param {() => void} node.begin called before the first change of one step of undo
     * @param {() => void} node.end called after its last one
     * @param {Promise<{name: string, path: object}[]>} presets
     */
    constructor(moving, node, presets) {
        this.moving = moving;
        this.node = node;
        this.place = 0;
        this.path = null; // while the text is not understood
        this.scene = { picture: { width: 16, height: 9 }, aspect: 16 / 9, count: 81 };
        this.stage = new Stage(() => this.#resized());
        this.timeline = new Timeline({
            seek: (place) => this.seek(place),
            move: (number, place) => this.#retime(number, place),
            hold: (isHeld) => (isHeld ? this.#begin() : this.#end()),
        });
        this.#build();
        this.#hear();
        presets.then((found) => this.presets.append(...found.map(({ name, path }) =>
            new Option(presetName(name), JSON.stringify(path)))));
    }

    /** Show a path; the text stays as it is, also where it is no path. isLinked: another node gives the text. */
    setText(given, isLinked = false) {
        if (given === this.text && isLinked === this.isLinked) return;
        this.text = given;
        this.isLinked = isLinked;
        this.path = null;
        this.#stop();
        try {
            if (!isLinked) this.path = parsePath(given, this.moving.kind);
            this.#tell(isLinked ? text("camera.linked") : "");
        } catch (error) {
            this.#tell(faultText(error));
        }
        this.#refit();
    }

    /** @param {{picture: object, aspect: number, count: number}} scene */
    setScene(scene) {
        this.scene = scene;
        this.stage.show(scene.picture, text("camera.no-picture"));
        this.#refit();
    }

    /** Show another place of the path, 0 to 1. */
    seek(place) {
        const near = this.path?.keyframes.find(({ t }) => Math.abs(t - place) < ATTRACTION);
        this.#stop();
        this.place = near?.t ?? limited("t", place);
        this.#update();
    }

    /** Return the height in pixels that it needs at a width. */
    minHeight(width) {
        const { picture } = this.scene;
        return this.bar.offsetHeight + GAP + Math.min(MAX_STAGE, Math.max(MIN_STAGE, width * picture.height / picture.width));
    }

    release() {
        this.#stop();
        this.#end();
        this.stage.release();
        this.element.remove();
    }

    #build() {
        this.playing = button("play", text("camera.play"), () => this.#toggle());
        this.count = element("output", { "aria-live": "off" });
        this.keyed = button("plus-circle", text("camera.add"), () => this.#toggleKeyframe());
        this.looking = button("eye", text("camera.look"), () => this.#look(this.stage.view.hidden));
        this.presets = element("select", { "aria-label": text("camera.preset") },
            new Option(text("camera.preset"), "", true, true));
        this.presets.addEventListener("change", () => this.#preset(this.presets.value));
        this.easing = element("select", { title: text("camera.easing"), "aria-label": text("camera.easing") },
            ...Object.keys(EASINGS).map((name) => new Option(text(`camera.easings.${name}`), name)));
        this.easing.addEventListener("change", () => this.#change(() => ({ easing: this.easing.value })));
        const kept = Object.entries({ t: 0.01, ...this.moving.fields });
        if (this.moving.kind.settings.includes("fov")) kept.push(["fov", 1]);
        this.numbers = Object.fromEntries(kept.map(([name, step]) => [name, this.#number(name, step)]));
        this.fault = element("p", { hidden: true, "role": "alert" });
        this.said = element("output", { className: "wan22-camera-said", "aria-live": "polite" });
        const help = text(`${this.moving.name}.help`);
        this.stage.element.setAttribute("aria-label", `${text(`${this.moving.name}.stage`)}. ${help}`);
        this.stage.view.title = text("camera.holes");
        this.bar = element("div", { className: "wan22-camera-bar" }, this.fault,
            element("div", { className: "wan22-camera-row" }, this.playing, this.timeline.element, this.count),
            element("div", { className: "wan22-camera-row" }, this.keyed, this.looking, this.presets, this.easing),
            element("div", { className: "wan22-camera-numbers" },
                ...Object.values(this.numbers).map((input) => input.parentNode)),
            element("small", { textContent: help, title: help }), this.said);
        this.element = element("div", { className: "wan22-camera", "role": "group",
            "aria-label": text(`${this.moving.name}.label`) }, this.stage.element, this.bar);
        setPressed(this.looking, false);
    }

    #number(name, step) {
        const title = text(`camera.numbers.${name}`);
        const input = element("input", { type: "number", step, title, "aria-label": title });
        input.addEventListener("change", () => this.#typed(name, input.valueAsNumber));
        element("label", {}, element("span", { textContent: name, "aria-hidden": "true" }), input);
        return input;
    }

    #typed(name, value) {
        if (Number.isNaN(value)) this.#update();
        else if (name === "fov") this.#change(() => ({ fov: limited("fov", value) }));
        else if (name !== "t") this.#change(() => this.#edited({ [name]: value }));
        else if (this.#here < 0) this.seek(Math.min(1, Math.max(0, value)));
        else this.#change(() => this.#retimed(this.#here, value));
    }

    #hear() {
        const { element: surface } = this.stage;
        surface.addEventListener("pointerdown", (event) => this.#down(event));
        surface.addEventListener("pointermove", (event) => this.#drag?.(event));
        for (const end of ["pointerup", "pointercancel"]) surface.addEventListener(end, () => this.#drop());
        surface.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
        this.element.addEventListener("keydown", (event) => this.#key(event));
        this.element.addEventListener("focusout", () => this.#drag || this.#end());
    }

    /** @type {((event: PointerEvent) => void) | null} what a move of the pointer does */
    #drag = null;
    #burst = 0;
    #isOpen = false;
    #animation = 0;

    get #here() {
        return this.path ? indexAt(this.path.keyframes, this.place) : -1;
    }

    get #whole() {
        return { ...this.scene, fov: this.path?.fov };
    }

    #tell(fault) {
        this.fault.textContent = fault;
        this.fault.hidden = !fault;
    }

    #down(event) {
        if (event.button !== 0 || !this.path || !this.stage.view.hidden) return;
        const { grab, keyframe } = event.target.dataset;
        if (keyframe !== undefined) this.seek(this.path.keyframes[keyframe].t);
        if (!grab && keyframe === undefined) return;
        this.stage.element.setPointerCapture(event.pointerId);
        const view = between(this.path.keyframes, this.place);
        const move = this.moving.drag(grab ?? "move", view, this.stage.pointAt(event), this.#whole);
        this.#drag = (moved) => {
            this.#begin();
            this.#apply(this.#edited(move(this.stage.pointAt(moved), moved)));
        };
    }

    #drop() {
        this.#drag = null;
        this.#end();
        this.#refit();
    }

    #wheel(event) {
        const isOurs = this.stage.element.contains(document.activeElement) && !event.ctrlKey && this.moving.wheel;
        if (!isOurs || !this.path) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        const view = between(this.path.keyframes, this.place);
        this.#burstOf(this.#edited(this.moving.wheel(view, event.deltaY)));
    }

    /** Handle the editor's keys and keep them from ComfyUI's own commands. */
    #key(event) {
        if (event.ctrlKey || event.metaKey) return void this.#end(); // undo: the step that is under way ends here
        if (event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
        const isOnStage = event.target === this.stage.element;
        const view = this.path && between(this.path.keyframes, this.place);
        const numbers = isOnStage && view ? this.moving.key(view, event.key, event.shiftKey) : undefined;
        const done = numbers ? () => this.#burstOf(this.#edited(numbers)) : {
            Delete: () => this.#here >= 0 && this.#toggleKeyframe(),
            Backspace: () => this.#here >= 0 && this.#toggleKeyframe(),
            k: () => this.#toggleKeyframe(),
            ",": () => this.#step(-1),
            ".": () => this.#step(1),
            Home: () => this.seek(0),
            End: () => this.seek(1),
            ...(event.target.tagName !== "BUTTON" && { " ": () => this.#toggle() }),
        }[event.key];
        if (done) {
            event.preventDefault();
            if (this.path) done();
            if (numbers) this.said.textContent = this.#summary();
        }
        if (done || event.key === " " || event.key.startsWith("Arrow")) event.stopPropagation();
    }

    #edited(numbers) {
        const named = Object.entries(numbers).map(([name, value]) => [name, limited(name, value)]);
        const { keyframes } = withKeyframe(this.path, this.place, Object.fromEntries(named));
        return { keyframes };
    }

    /** Return the keyframes with one of them at another time; it stays between its neighbours. */
    #retimed(number, t) {
        const { keyframes } = this.path;
        const least = number > 0 ? keyframes[number - 1].t + 0.005 : 0;
        const most = number < keyframes.length - 1 ? keyframes[number + 1].t - 0.005 : 1;
        this.place = limited("t", Math.min(most, Math.max(least, t)));
        return { keyframes: keyframes.with(number, { ...keyframes[number], t: this.place }) };
    }

    #retime(number, place) {
        if (this.path) this.#burstOf(this.#retimed(number, place));
    }

    #toggleKeyframe() {
        const { keyframes } = this.path;
        const here = this.#here;
        if (here < 0) this.#change(() => this.#edited({}));
        else if (keyframes.length > 1) this.#change(() => ({ keyframes: keyframes.filter((_, n) => n !== here) }));
    }

    #preset(path) {
        this.presets.value = "";
        this.#begin();
        this.place = 0;
        this.#write(formatPath(parsePath(path, this.moving.kind)));
        this.#end();
        this.#refit();
    }

    /** Make one change, a step of undo of its own. */
    #change(change) {
        this.#end();
        this.#begin();
        this.#apply(change());
        this.#end();
        this.#refit();
    }

    /** Make a change that is one step of undo with those just before and after it. */
    #burstOf(change) {
        this.#begin();
        this.#apply(change);
        clearTimeout(this.#burst);
        this.#burst = setTimeout(() => this.#drag || this.#drop(), BURST);
    }

    #apply(change) {
        this.#write(formatPath({ ...this.path, ...change }));
        this.#update();
    }

    #write(written) {
        this.text = written;
        this.path = parsePath(written, this.moving.kind);
        this.place = this.path.keyframes[this.#here]?.t ?? this.place;
        this.#tell("");
        this.node.write(written);
    }

    #begin() {
        this.#stop();
        if (!this.#isOpen) this.node.begin();
        this.#isOpen = true;
    }

    #end() {
        clearTimeout(this.#burst);
        if (this.#isOpen) this.node.end();
        this.#isOpen = false;
    }

    #step(by) {
        const { easing } = this.path;
        const last = this.scene.count - 1;
        const frame = Math.min(last, Math.max(0, frameAt(easing, this.place, this.scene.count) + by));
        this.#stop();
        this.place = placeAt(easing, frame, this.scene.count);
        this.#update();
    }

    #toggle() {
        if (this.#animation) this.#stop();
        else if (this.path) this.#play();
    }

    /** Play the clip's frames at its rate, again and again, as the camera sees them. */
    #play() {
        this.#end();
        const { count } = this.scene;
        const first = this.place < 1 ? frameAt(this.path.easing, this.place, count) : 0;
        const start = performance.now() - first / RATE * 1000;
        const show = (now) => {
            this.place = placeAt(this.path.easing, Math.max(0, Math.floor((now - start) * RATE / 1000)) % count, count);
            this.#update();
            this.#animation = requestAnimationFrame(show);
        };
        this.wasLooking = !this.stage.view.hidden;
        this.#look(true);
        relabel(this.playing, "pause", text("camera.pause"));
        this.#animation = requestAnimationFrame(show);
    }

    #stop() {
        if (!this.#animation) return;
        cancelAnimationFrame(this.#animation);
        this.#animation = 0;
        relabel(this.playing, "play", text("camera.play"));
        this.#look(this.wasLooking);
    }

    #look(isLooking) {
        this.stage.setLooking(isLooking);
        setPressed(this.looking, isLooking);
        this.#update();
    }

    #resized() {
        if (this.#drag) this.#update();
        else this.#refit();
    }

    /** Draw with the picture at the scale at which the whole path is seen; not during a drag, which would jump. */
    #refit() {
        const fault = this.path && this.moving.fault(this.path, this.#whole);
        if (this.path) this.#tell(fault ? text(`camera.fault.${fault}`) : "");
        this.stage.fit(this.path ? this.moving.extent(this.path, this.#whole) : []);
        this.#update();
    }

    #update() {
        const { path, place, stage } = this;
        const isOff = !path;
        this.element.classList.toggle("off", isOff);
        for (const part of [this.playing, this.looking, this.keyed, this.easing, ...Object.values(this.numbers)])
            part.disabled = isOff;
        this.presets.disabled = this.isLinked;
        if (isOff) return void (stage.draw([]), this.timeline.show([], 0, ""));
        const view = between(path.keyframes, place);
        if (stage.view.hidden) stage.draw(this.moving.draw(stage, path, place, this.#whole));
        else stage.look(this.moving.look(view, this.#whole), this.scene.aspect);
        const { count } = this.scene;
        this.count.textContent = text("player.of", { frame: frameAt(path.easing, place, count) + 1, count });
        this.timeline.show(path.keyframes, place, this.count.textContent);
        const isKeyframe = this.#here >= 0;
        relabel(this.keyed, isKeyframe ? "minus-circle" : "plus-circle",
            text(isKeyframe ? "camera.remove" : "camera.add"));
        this.keyed.disabled = isKeyframe && path.keyframes.length === 1;
        this.easing.value = path.easing;
        for (const [name, input] of Object.entries(this.numbers)) {
            const value = limited(name, name === "fov" ? path.fov : view[name]);
            if (document.activeElement !== input || input.valueAsNumber !== value) input.value = value;
        }
    }

    #summary() {
        const view = between(this.path.keyframes, this.place);
        return Object.keys(this.moving.fields).map((name) => `${name} ${limited(name, view[name])}`).join(", ");
    }
}

function presetName(name) {
    const key = `camera.presets.${name}`;
    const found = text(key);
    return found === key ? name : found;
}

/** Return the sentence for a PathError, as Python says it. */
function faultText({ key, values, where }) {
    const place = typeof where === "number" ? text("camera.fault.where.keyframe", { number: where })
        : text(`camera.fault.where.${where}`);
    return text(`camera.fault.${key}`, { ...values, where: place });
}
