import { element } from "../element.js";
import { multiply, toCSS, translation } from "./frame.js";

/** A picture under a transform, with the part that is cut out of it, and what is left where that was. */
export class Layers {
    constructor() {
        const [image, hole, cut] = ["picture", "hole", "cut"].map((className) =>
            element("img", { className, alt: "", draggable: false, hidden: true }));
        Object.assign(this, { image, hole, cut });
        this.elements = [image, hole, cut];
    }

    /** @param {{width: number, height: number, url?: string, object?: {hole: string, cut: string}}} picture */
    show({ width, height, url, object }) {
        for (const [layer, source] of [[this.image, url], [this.hole, object?.hole], [this.cut, object?.cut]]) {
            layer.hidden = !source;
            if (source && layer.src !== source) layer.src = source;
            Object.assign(layer.style, { width: `${width}px`, height: `${height}px` });
        }
    }

    /**
     * @param {number[]} matrix from pixels of the picture to where it is shown
     * @param {[number, number]} shift of what is cut out, in pixels of the picture
     */
    transform(matrix, shift) {
        this.image.style.transform = this.hole.style.transform = toCSS(matrix);
        this.cut.style.transform = toCSS(multiply(matrix, translation(...shift)));
    }
}
