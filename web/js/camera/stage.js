import { element } from "../element.js";
import { apply, frameSize, invert, multiply, scaling, translation } from "./frame.js";
import { Layers } from "./layers.js";

/** Pixels around the picture, so that handles at its edge can be seen and caught. */
const PADDING = 30;
/** A path that leaves the picture by more than this, in its widths and heights, is drawn cut. */
const MOST_OUTSIDE = 1;
/** Radius of a keyframe's dot in pixels. */
const DOT = 5;
const SVG = "http://www.w3.org/2000/svg";

/** Return a new SVG element with attributes. */
export function shape(name, attributes = {}) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
}

/** Return points of the stage as an attribute of shapes. */
export const pointsOf = (points) => points.map((point) => point.map((value) => value.toFixed(2)).join()).join(" ");

/** Return shapes of a line through points of the stage. */
export function line(points) {
    return ["path-edge", "path"].map((name) => shape("polyline", { class: name, points: pointsOf(points) }));
}

/** Return a shape of a keyframe at a point of the stage; caught: its data-keyframe, where it can be caught. */
export function dot([cx, cy], isHere, caught = {}) {
    return shape("circle", { class: isHere ? "keyframe here" : "keyframe", cx, cy, r: DOT, ...caught });
}

/**
 * The picture and what is drawn over it; or, looking through the camera, what the camera sees.
 *
 * Points of the picture are in its pixels, points of the stage in CSS pixels from its upper left corner.
 */
export class Stage {
    /** @param {() => void} onResize called when everything must be drawn anew */
    constructor(onResize) {
        this.picture = { width: 16, height: 9 };
        this.toStage = this.toPicture = scaling(1, 1);
        this.shown = new Layers();
        this.seen = new Layers();
        this.overlay = shape("svg", { "aria-hidden": "true" });
        this.hint = element("p");
        this.world = element("div", { className: "wan22-camera-world" }, ...this.shown.elements, this.overlay,
            this.hint);
        this.view = element("div", { className: "wan22-camera-view", hidden: true }, ...this.seen.elements);
        this.fault = element("p", { className: "wan22-camera-fault", hidden: true, "role": "alert" });
        this.element = element("div", { className: "wan22-camera-stage", tabIndex: 0, "role": "application",
            "data-capture-wheel": "true" }, this.world, this.view, this.fault);
        this.observer = new ResizeObserver(onResize);
        this.observer.observe(this.element);
    }

    /**
     * Show a picture, or an empty one.
     * @param {Parameters<Layers["show"]>[0]} picture
     * @param {string} hint said instead of a picture
     */
    show(picture, hint) {
        this.picture = picture;
        this.hint.textContent = picture.url ? "" : hint;
        this.shown.show(picture);
        this.seen.show(picture);
    }

    /** Say over the picture why there is no path, or what is wrong with it; "" when nothing is. */
    tell(fault) {
        this.fault.textContent = fault;
        this.fault.hidden = !fault;
    }

    get size() {
        return [this.element.clientWidth, this.element.clientHeight];
    }

    /** Scale the picture so that it and these of its points are all on the stage. */
    fit(points) {
        const [width, height] = this.size;
        const span = (size, values) => [Math.max(-MOST_OUTSIDE * size, Math.min(0, ...values)),
            Math.min((1 + MOST_OUTSIDE) * size, Math.max(size, ...values))];
        const [left, right] = span(this.picture.width, points.map(([x]) => x));
        const [top, bottom] = span(this.picture.height, points.map(([, y]) => y));
        const scale = Math.max(1e-3, Math.min((width - 2 * PADDING) / (right - left),
            (height - 2 * PADDING) / (bottom - top)));
        this.toStage = multiply(translation(width / 2, height / 2),
            multiply(scaling(scale, scale), translation(-(left + right) / 2, -(top + bottom) / 2)));
        this.toPicture = invert(this.toStage);
        this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
        const [x, y] = apply(this.toStage, [0, 0]);
        Object.assign(this.hint.style, { left: `${x}px`, top: `${y}px`, width: `${this.picture.width * scale}px`,
            height: `${this.picture.height * scale}px` });
    }

    /** Return the point of the picture under the pointer: the canvas shows nodes at any scale. */
    pointAt(event) {
        const place = this.element.getBoundingClientRect();
        const scale = this.element.clientWidth / place.width;
        return apply(this.toPicture, [(event.clientX - place.left) * scale, (event.clientY - place.top) * scale]);
    }

    /**
     * Show the picture, and shapes over it.
     * @param {SVGElement[]} shapes in points of the stage
     * @param {[number, number]} shift of what is cut out, in pixels of the picture
     */
    draw(shapes, shift) {
        this.overlay.replaceChildren(...shapes);
        this.shown.transform(this.toStage, shift);
    }

    /**
     * Look through the camera.
     * @param {number[]} matrix from the frame's own units to pixels of the picture
     * @param {number} aspect of the frame
     * @param {[number, number]} shift of what is cut out, in pixels of the picture
     */
    look(matrix, aspect, shift) {
        const [width, height] = this.size;
        const [seenWidth, seenHeight] = frameSize({ width, height }, aspect);
        Object.assign(this.view.style, { width: `${seenWidth}px`, height: `${seenHeight}px` });
        const units = multiply(scaling(seenWidth, seenHeight), translation(0.5, 0.5));
        this.seen.transform(multiply(units, invert(matrix)), shift);
    }

    /** Show what the camera sees in place of the picture, or the picture again. */
    setLooking(isLooking) {
        this.view.hidden = !isLooking;
        this.world.hidden = isLooking;
    }

    release() {
        this.observer.disconnect();
    }
}
