import { element } from "../element.js";
import { text } from "../text.js";
import { Animation } from "./animation.js";
import { Controls } from "./controls.js";
import { between, formatPath, frameAt, indexAt, limited, parsePath, placeAt, withKeyframe } from "./path.js";
import { Stage } from "./stage.js";
import { LEAST_DRAG, Timeline } from "./timeline.js";
import { UndoStep } from "./undo_step.js";

/** Distance on the path between two keyframes. */
const LEAST_TIME = 0.005;

/**
 * The editor of a path: a picture to draw on, a timeline, and everything as numbers.
 *
 * It shows the text that it is given with setText, and writes each change of the user as text.
 */
export class Editor {
    /**
     * @param {import("./camera.js").camera} moving what moves
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
        this.step = new UndoStep(() => node.begin(), () => {
            node.end();
            this.#refit();
        });
        this.animation = new Animation();
        this.stage = new Stage(() => this.#resized());
        this.timeline = new Timeline({
            seek: (place) => this.seek(place),
            move: (number, place) => this.path && this.#burst(this.#retimed(number, place)),
        });
        this.controls = new Controls(moving, this.timeline.element, {
            play: () => this.#toggle(),
            keyframe: () => this.#toggleKeyframe(),
            look: () => this.#look(this.stage.view.hidden),
            preset: (path) => this.#preset(path),
            easing: (easing) => this.#change({ easing }),
            number: (name, value) => this.#typed(name, value),
        }, presets);
        this.element = element("div", { className: "wan22-camera wan22-controls", "role": "group",
            "aria-label": text(`${moving.name}.label`) }, this.stage.element, this.controls.element);
        const [name, help] = [text(`${moving.name}.stage`), text(`${moving.name}.help`)];
        this.stage.element.setAttribute("aria-label", `${name}. ${help}`);
        this.stage.view.title = text("camera.holes");
        this.#hear();
    }

    /** @type {((event: PointerEvent) => void) | null} what a move of the pointer does */
    #drag = null;

    /** Show a path; the text stays as it is, also where it is no path. isLinked: another node gives the text. */
    setText(given, isLinked = false) {
        if (given === this.text && isLinked === this.isLinked) return;
        this.text = given;
        this.isLinked = isLinked;
        this.path = null;
        this.#stop();
        try {
            if (!isLinked) this.path = parsePath(given, this.moving.kind);
            this.stage.tell(isLinked ? text("camera.linked") : "");
        } catch (error) {
            this.stage.tell(faultText(error));
        }
        this.#refit();
    }

    /** @param {{picture: object, aspect: number, count: number}} scene */
    setScene(scene) {
        this.scene = scene;
        this.stage.show(scene.picture, text("camera.no-picture"));
        const lacksMask = this.moving.cuts && scene.picture.url && !scene.picture.object;
        this.controls.help.textContent = text(lacksMask ? "camera.no-mask" : `${this.moving.name}.help`);
        this.#refit();
    }

    /** Show another place of the path, 0 to 1. */
    seek(place) {
        this.#stop();
        this.place = limited("t", place);
        this.#update();
    }

    release() {
        this.#stop();
        this.step.close();
        this.stage.release();
        this.element.remove();
    }

    #hear() {
        const { element: surface } = this.stage;
        surface.addEventListener("pointerdown", (event) => this.#down(event));
        surface.addEventListener("pointermove", (event) => this.#drag?.(event));
        for (const end of ["pointerup", "pointercancel"]) surface.addEventListener(end, () => this.#drop());
        surface.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
        this.element.addEventListener("keydown", (event) => this.#key(event));
        // Whoever leaves the editor may open another workflow, and ComfyUI keeps no change whose step is not over.
        this.element.addEventListener("focusout", () => this.step.close());
    }

    #down(event) {
        if (event.button !== 0 || !this.path || !this.stage.view.hidden) return;
        const { grab, keyframe } = event.target.dataset;
        if (keyframe !== undefined) this.seek(this.path.keyframes[keyframe].t);
        const caught = keyframe === undefined ? grab : "move";
        const move = this.moving.drag(caught, this.#view, this.stage.pointAt(event), this.#whole);
        if (!move) return;
        this.stage.element.setPointerCapture(event.pointerId);
        let isClick = true;
        this.#drag = (moved) => {
            const way = Math.hypot(moved.clientX - event.clientX, moved.clientY - event.clientY);
            isClick &&= way < LEAST_DRAG;
            if (isClick) return;
            this.step.open();
            const numbers = move(this.stage.pointAt(moved), moved);
            if (numbers.keyframes) this.place = 1; // of a new path
            this.#apply(numbers.keyframes ? numbers : this.#edited(numbers));
        };
    }

    #drop() {
        this.#drag = null;
        this.step.close();
    }

    #wheel(event) {
        const isOurs = this.stage.element.contains(document.activeElement) && !event.ctrlKey && this.moving.wheel;
        if (!isOurs || !this.path) return;
        event.preventDefault();
        event.stopImmediatePropagation();
        this.#burst(this.#edited(this.moving.wheel(this.#view, event.deltaY)));
    }

    /** Handle the editor's keys and keep them from ComfyUI's own commands. */
    #key(event) {
        if (event.ctrlKey || event.metaKey) return void this.step.close(); // undo takes back what is under way
        if (event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
        const isOnStage = event.target === this.stage.element;
        const numbers = isOnStage && this.path ? this.moving.key(this.#view, event.key, event.shiftKey) : undefined;
        const done = numbers ? () => this.#burst(this.#edited(numbers)) : {
            Delete: () => this.#here >= 0 && this.#toggleKeyframe(),
            Backspace: () => this.#here >= 0 && this.#toggleKeyframe(),
            k: () => this.#here < 0 && this.#toggleKeyframe(),
            ",": () => this.#go(-1),
            ".": () => this.#go(1),
            Home: () => this.seek(0),
            End: () => this.seek(1),
            ...(event.target.tagName !== "BUTTON" && { " ": () => this.#toggle() }),
        }[event.key];
        if (done) {
            event.preventDefault();
            if (this.path) done();
            if (numbers) this.controls.say(this.#view);
        }
        if (done || event.key === " " || event.key.startsWith("Arrow")) event.stopPropagation();
    }

    /** Number of the keyframe that is shown; -1 between them. */
    get #here() {
        return indexAt(this.path.keyframes, this.place);
    }

    get #view() {
        return between(this.path.keyframes, this.place);
    }

    get #whole() {
        return { ...this.scene, fov: this.path.fov };
    }

    #typed(name, value) {
        if (Number.isNaN(value)) this.#update();
        else if (name === "fov") this.#change({ fov: limited("fov", value) });
        else if (name !== "t") this.#change(this.#edited({ [name]: value }));
        else if (this.#here < 0) this.seek(value);
        else this.#change(this.#retimed(this.#here, value));
    }

    /** Return the keyframes with other numbers at the place that is shown. */
    #edited(numbers) {
        const kept = Object.entries(numbers).map(([name, value]) => [name, limited(name, value)]);
        return { keyframes: withKeyframe(this.path, this.place, Object.fromEntries(kept)).keyframes };
    }

    /** Return the keyframes with one of them at another time, which is shown; it stays between its neighbours. */
    #retimed(number, t) {
        const { keyframes } = this.path;
        const least = number > 0 ? keyframes[number - 1].t + LEAST_TIME : 0;
        const most = number < keyframes.length - 1 ? keyframes[number + 1].t - LEAST_TIME : 1;
        this.place = least > most ? keyframes[number].t : limited("t", Math.min(most, Math.max(least, t)));
        return { keyframes: keyframes.with(number, { ...keyframes[number], t: this.place }) };
    }

    #toggleKeyframe() {
        const { keyframes } = this.path;
        if (this.#here < 0) this.#change(this.#edited({}));
        else if (keyframes.length > 1) this.#change({ keyframes: keyframes.filter((_, n) => n !== this.#here) });
    }

    #preset(path) {
        this.place = 0;
        this.path = parsePath(path, this.moving.kind);
        this.#change({});
    }

    /** Make one change, a step of undo of its own. */
    #change(change) {
        this.step.close();
        this.step.open();
        this.#apply(change);
        this.step.close();
    }

    /** Make a change that is one step of undo with those just before and after it. */
    #burst(change) {
        this.step.openForBurst();
        this.#apply(change);
    }

    /** Write the path with a change; where that is no path, say why, and leave what was. */
    #apply(change) {
        this.#stop();
        const written = formatPath({ ...this.path, ...change });
        try {
            this.path = parsePath(written, this.moving.kind);
            this.text = written;
            this.place = this.path.keyframes[this.#here]?.t ?? this.place;
            this.stage.tell("");
            this.node.write(written);
        } catch (error) {
            this.stage.tell(faultText(error));
        }
        this.#update();
    }

    /** Show the frame that is so many frames further. */
    #go(by) {
        const { path: { easing }, scene: { count } } = this;
        this.#stop();
        const frame = Math.min(count - 1, Math.max(0, frameAt(easing, this.place, count) + by));
        this.place = placeAt(easing, frame, count);
        this.#update();
    }

    #toggle() {
        if (this.animation.isRunning) return void this.#stop();
        const { path: { easing }, scene: { count } } = this;
        this.step.close();
        this.wasLooking = !this.stage.view.hidden;
        this.#look(true);
        this.controls.setPlaying(true);
        this.animation.start(this.place < 1 ? frameAt(easing, this.place, count) : 0, count, (frame) => {
            this.place = placeAt(easing, frame, count);
            this.#update();
        });
    }

    #stop() {
        if (!this.animation.isRunning) return;
        this.animation.stop();
        this.controls.setPlaying(false);
        this.#look(this.wasLooking);
    }

    #look(isLooking) {
        this.stage.setLooking(isLooking);
        this.controls.setLooking(isLooking);
        this.#update();
    }

    #resized() {
        if (this.#drag) this.#update();
        else this.#refit();
    }

    /** Draw the picture at the scale at which the whole path is seen: not during a drag, which would jump. */
    #refit() {
        if (this.path) {
            const fault = this.moving.fault(this.path, this.#whole);
            if (fault) this.stage.tell(text(`camera.fault.${fault}`));
        }
        this.stage.fit(this.path ? this.moving.extent(this.path, this.#whole) : []);
        this.#update();
    }

    #update() {
        const { path, place, stage } = this;
        this.element.classList.toggle("off", !path);
        this.controls.setOff(!path, this.isLinked);
        if (!path) {
            stage.draw([], [0, 0]);
            this.timeline.show([], 0, "");
            return;
        }
        const view = this.#view;
        const shift = this.moving.shift(view, this.#whole);
        if (stage.view.hidden) stage.draw(this.moving.draw(stage, path, place, this.#whole), shift);
        else stage.look(this.moving.look(view, this.#whole), this.scene.aspect, shift);
        const { count } = this.scene;
        const frame = text("player.of", { frame: frameAt(path.easing, place, count) + 1, count });
        this.timeline.show(path.keyframes, place, frame);
        this.controls.show({ view: { ...view, fov: path.fov }, frame, isKeyframe: this.#here >= 0,
            isOnly: path.keyframes.length === 1, easing: path.easing });
    }
}

/** Return the sentence for a PathError, as Python says it. */
function faultText({ key, values, where }) {
    const place = typeof where === "number" ? text("camera.fault.where.keyframe", { number: where })
        : text(`camera.fault.where.${where}`);
    return text(`camera.fault.${key}`, { ...values, where: place });
}
