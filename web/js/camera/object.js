import { apply, frameMatrix, frameSize } from "./frame.js";
import { between, CAMERA, DEFAULT_FOV, indexAt, limited, OBJECT } from "./path.js";
import { dot, line, shape } from "./stage.js";

/** Pixels of the stage. */
const RING = 10;
/** Widths of the frame that a drawn path may be simplified by, and the least time between two of its keyframes. */
const TOLERANCE = 0.01;
const LEAST_TIME = 0.01;
/** Widths of the frame around the object at which it is still caught. */
const NEAR = 0.04;
const REST = CAMERA.numbers;
const AT_START = OBJECT.numbers;

/**
 * What moves on Move Object: what the mask covers.
 *
 * A scene is {picture, aspect}; picture.object has the object's centre and its box, where the mask is known.
 */
export const object = {
    kind: OBJECT,
    fields: { x: 0.01, y: 0.01 },
    name: "camera.object",
    cuts: true,

    /** Return the places of the object, in pixels of the picture. */
    extent: ({ keyframes }, scene) => keyframes.map((moved) => placeOf(moved, scene)),

    fault: () => undefined,

    /** Return the matrix to look through a camera at rest. */
    look: (moved, { picture, aspect }) => frameMatrix(REST, picture, aspect, DEFAULT_FOV),

    shift: shiftOf,

    draw(stage, path, place, scene) {
        const toStage = (point) => apply(stage.toStage, point);
        const here = indexAt(path.keyframes, place);
        const places = path.keyframes.map((moved) => toStage(placeOf(moved, scene)));
        const [x, y] = toStage(placeOf(between(path.keyframes, place), scene));
        return [
            ...line(places),
            shape("circle", { class: "ring", cx: x, cy: y, r: RING }),
            ...places.map((point, n) => dot(point, n === here, n > 0 ? { "data-keyframe": n } : {})),
        ];
    },

    /** Begin a drag: of a keyframe, or of the object, which draws a new path. Returns null beside both. */
    drag(grab, moved, from, scene) {
        const [width, height] = frameSize(scene.picture, scene.aspect);
        const way = ([x, y]) => [(x - from[0]) / width, (y - from[1]) / height];
        if (grab === "move") return (to) => ({ x: moved.x + way(to)[0], y: moved.y + way(to)[1] });
        if (!isOn(from, moved, scene, NEAR * width)) return null;
        const drawn = [[0, 0]];
        return (to) => {
            drawn.push(way(to));
            return { keyframes: keyframesOf(drawn) };
        };
    },

    /** Return the numbers after a key; undefined for a key that changes none. With Shift they change more. */
    key({ x, y }, key, isLarge) {
        const by = isLarge ? 0.1 : 0.01;
        return { ArrowLeft: { x: x - by }, ArrowRight: { x: x + by },
            ArrowUp: { y: y - by }, ArrowDown: { y: y + by } }[key];
    },
};

function shiftOf({ x, y }, { picture, aspect }) {
    const [width, height] = frameSize(picture, aspect);
    return [x * width, y * height];
}

function placeOf(moved, scene) {
    const { picture } = scene;
    const [x, y] = picture.object?.centre ?? [picture.width / 2, picture.height / 2];
    const [dx, dy] = shiftOf(moved, scene);
    return [x + dx, y + dy];
}

/** Tell if a point of the picture is on the moved object: in its box, or less than `near` pixels beside it. */
function isOn([x, y], moved, scene, near) {
    const [dx, dy] = shiftOf(moved, scene);
    const [atX, atY] = placeOf(AT_START, scene);
    const [left, top, right, bottom] = scene.picture.object?.box ?? [atX, atY, atX, atY];
    return x - dx > left - near && x - dx < right + near && y - dy > top - near && y - dy < bottom + near;
}

/** Return keyframes along drawn points, which are passed at an even speed. */
function keyframesOf(drawn) {
    const lengths = [0];
    for (let n = 1; n < drawn.length; n++) lengths.push(lengths[n - 1] + distance(drawn[n], drawn[n - 1]));
    const whole = lengths.at(-1) || 1;
    const keyframes = [];
    for (const n of simplified(drawn, 0, drawn.length - 1)) {
        const t = n === drawn.length - 1 ? 1 : limited("t", lengths[n] / whole);
        if (keyframes.length > 1 && t - keyframes.at(-1).t < LEAST_TIME) keyframes.pop();
        keyframes.push({ t, x: limited("x", drawn[n][0]), y: limited("y", drawn[n][1]) });
    }
    return keyframes;
}

const distance = ([x, y], [otherX, otherY]) => Math.hypot(x - otherX, y - otherY);

/** Return the numbers of the points to keep between two of them, by Ramer, Douglas and Peucker. */
function simplified(points, first, last) {
    const [from, to] = [points[first], points[last]];
    const length = distance(from, to);
    let [furthest, most] = [0, TOLERANCE];
    for (let n = first + 1; n < last; n++) {
        const area = (to[0] - from[0]) * (from[1] - points[n][1]) - (from[0] - points[n][0]) * (to[1] - from[1]);
        const off = length > 1e-9 ? Math.abs(area) / length : distance(points[n], from);
        if (off > most) [furthest, most] = [n, off];
    }
    if (!furthest) return [first, last];
    return [...simplified(points, first, furthest).slice(0, -1), ...simplified(points, furthest, last)];
}
