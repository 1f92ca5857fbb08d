import { element } from "../element.js";
import { text } from "../text.js";
import { indexAt } from "./path.js";

/** Pixels that the pointer moves before a click becomes a drag. */
export const LEAST_DRAG = 3;
/** Distance on the path at which a keyframe attracts the handle when it is dragged. */
const ATTRACTION = 0.012;

/** The path as a line, with a handle at the place that is shown and a mark at each keyframe. */
export class Timeline {
    /**
     * @param {object} on
     * @param {(place: number) => void} on.seek called with a place of the path, from 0 to 1
     * @param {(number: number, place: number) => void} on.move called to move a keyframe
     */
    constructor(on) {
        this.on = on;
        this.marks = element("div", { className: "wan22-camera-marks" });
        this.handle = element("div", { className: "wan22-camera-place", tabIndex: 0, "role": "slider",
            "aria-label": text("camera.place"), "aria-valuemin": 0, "aria-valuemax": 1 });
        this.element = element("div", { className: "wan22-camera-timeline" }, this.handle, this.marks);
        this.element.addEventListener("pointerdown", (event) => this.#down(event));
        this.element.addEventListener("pointermove", (event) => this.#drag?.(event));
        for (const end of ["pointerup", "pointercancel"])
            this.element.addEventListener(end, () => (this.#drag = null));
        this.element.addEventListener("keydown", (event) => this.#key(event));
    }

    /** @type {((event: PointerEvent) => void) | null} */
    #drag = null;
    #places = [];

    /**
     * @param {{t: number}[]} keyframes
     * @param {number} place
     * @param {string} said of the place, for screen readers
     */
    show(keyframes, place, said) {
        this.handle.style.left = `${place * 100}%`;
        this.handle.setAttribute("aria-valuenow", place.toFixed(3));
        this.handle.setAttribute("aria-valuetext", said);
        while (this.marks.childElementCount > keyframes.length) this.marks.lastChild.remove();
        while (this.marks.childElementCount < keyframes.length) {
            const number = this.marks.childElementCount;
            const onclick = () => this.on.seek(this.#places[number]);
            this.marks.append(element("button", { type: "button", onclick }));
        }
        this.#places = keyframes.map(({ t }) => t);
        const here = indexAt(keyframes, place);
        keyframes.forEach(({ t }, n) => {
            const mark = this.marks.children[n];
            const name = text("camera.keyframe", { number: n + 1, count: keyframes.length, t });
            mark.style.left = `${t * 100}%`;
            mark.title = name;
            mark.setAttribute("aria-label", name);
            mark.toggleAttribute("aria-current", n === here);
        });
    }

    #placeOf(event) {
        const { left, width } = this.element.getBoundingClientRect();
        return Math.min(1, Math.max(0, (event.clientX - left) / width));
    }

    #down(event) {
        if (event.button !== 0) return;
        this.element.setPointerCapture(event.pointerId);
        const number = [...this.marks.children].indexOf(event.target.closest("button"));
        if (number < 0) {
            this.handle.focus();
            this.#drag = (moved) => {
                const place = this.#placeOf(moved);
                this.on.seek(this.#places.find((t) => Math.abs(t - place) < ATTRACTION) ?? place);
            };
            this.#drag(event);
            return;
        }
        this.marks.children[number].focus();
        this.on.seek(this.#places[number]);
        let start = event.clientX;
        this.#drag = (moved) => {
            if (Math.abs(moved.clientX - start) < LEAST_DRAG) return; // so far it is a click
            start = -Infinity;
            this.on.move(number, this.#placeOf(moved));
        };
    }

    #key(event) {
        const by = { ArrowLeft: -0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowUp: 0.01 }[event.key];
        if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        const number = [...this.marks.children].indexOf(event.target);
        if (number < 0) this.on.seek(Number(this.handle.getAttribute("aria-valuenow")) + by);
        else this.on.move(number, this.#places[number] + by);
    }
}
