import { apply, CORNERS, frameMatrix, frameSize } from "./frame.js";
import { between, CAMERA, indexAt } from "./path.js";
import { dot, line, pointsOf, shape } from "./stage.js";

/** Pixels of the stage. */
const HANDLE = 5;
const TURN_AWAY = 24;
/** With more keyframes than this, the frames of the first and the last one are drawn alone. */
const MOST_OUTLINES = 6;
/** Points of the path that are drawn beside its keyframes. */
const WAY = 60;
const DEGREES = 180 / Math.PI;
const SNAP = 15;

const minus = ([x, y], [fromX, fromY]) => [x - fromX, y - fromY];
const angle = ([x, y]) => Math.atan2(y, x) * DEGREES;

/**
 * What moves on Camera Path: the camera's frame in the picture.
 *
 * A scene is {picture, aspect, fov}: the picture's size, the clip's width / height, and the camera's angle of view.
 */
export const camera = {
    kind: CAMERA,
    fields: { x: 0.01, y: 0.01, zoom: 0.01, roll: 1, tilt: 1, orbit: 1 },
    name: "camera.camera",
    cuts: false,

    /** Return the corners of all frames, in pixels of the picture. */
    extent({ keyframes }, scene) {
        return keyframes.flatMap((view) => cornersOf(view, scene));
    },

    /** Return the key of a fault that the path has in this scene, or undefined. */
    fault({ keyframes }, scene) {
        const isPastHorizon = (view) => {
            const [, , , , , , g, h, i] = frameMatrix(view, scene.picture, scene.aspect, scene.fov);
            return CORNERS.some(([x, y]) => g * x + h * y + i <= 1e-6);
        };
        return wayOf({ keyframes }).some(isPastHorizon) ? "horizon" : undefined;
    },

    /** Return the matrix to look through the camera. */
    look: (view, scene) => frameMatrix(view, scene.picture, scene.aspect, scene.fov),

    /** Return how far what is cut out of the picture is from its place. */
    shift: () => [0, 0],

    draw(stage, path, place, scene) {
        const toStage = (point) => apply(stage.toStage, point);
        const outline = (view) => pointsOf(cornersOf(view, scene).map(toStage));
        const { keyframes } = path;
        const view = between(keyframes, place);
        const corners = cornersOf(view, scene).map(toStage);
        const centres = keyframes.map((keyframe) => toStage(centreOf(keyframe, scene)));
        const way = wayOf(path).map((passed) => toStage(centreOf(passed, scene)));
        const shown = keyframes.length > MOST_OUTLINES ? [keyframes[0], keyframes.at(-1)] : keyframes;
        const here = indexAt(keyframes, place);
        const [width, height] = stage.size;
        const [top, turn] = turnHandle(corners);
        return [
            shape("path", { class: "shade", d: `M0 0H${width}V${height}H0ZM${pointsOf(corners).replaceAll(" ", "L")}Z` }),
            ...shown.map((keyframe) => shape("polygon", { class: "other", points: outline(keyframe) })),
            ...line(way),
            shape("polygon", { class: "frame-edge", points: pointsOf(corners) }),
            shape("polygon", { class: "frame", points: pointsOf(corners), "data-grab": "move" }),
            ...centres.map((centre, n) => dot(centre, n === here, { "data-keyframe": n })),
            shape("line", { class: "arm", x1: top[0], y1: top[1], x2: turn[0], y2: turn[1] }),
            shape("circle", { class: "handle turn", cx: turn[0], cy: turn[1], r: HANDLE + 1, "data-grab": "turn" }),
            ...corners.map(([x, y], n) => shape("rect", { class: `handle scale-${n % 2}`, x: x - HANDLE, y: y - HANDLE,
                width: 2 * HANDLE, height: 2 * HANDLE, "data-grab": "scale" })),
        ];
    },

    /**
     * Begin a drag.
     * @param {"move" | "scale" | "turn" | undefined} grab what was caught
     * @param {object} view the numbers at its start
     * @param {[number, number]} from the point of the picture where it starts
     * @returns {((to: [number, number], event: {shiftKey: boolean}) => object) | null} the numbers for a point; with
     *     Shift a move keeps to one axis, and a turn to steps. null when nothing was caught
     */
    drag(grab, view, from, scene) {
        if (!grab) return null;
        const centre = centreOf(view, scene);
        const [width, height] = frameSize(scene.picture, scene.aspect);
        const start = minus(from, centre);
        if (grab === "move") return (to, { shiftKey }) => {
            const [dx, dy] = minus(to, from);
            const isAcross = Math.abs(dx) >= Math.abs(dy);
            return { x: view.x + (shiftKey && !isAcross ? 0 : dx / width),
                y: view.y + (shiftKey && isAcross ? 0 : dy / height) };
        };
        if (grab === "scale") return (to) => ({
            zoom: view.zoom * Math.hypot(...start) / Math.max(1e-6, Math.hypot(...minus(to, centre))),
        });
        let [before, turned] = [angle(start), 0];
        return (to, { shiftKey }) => {
            const now = angle(minus(to, centre));
            turned += (now - before + 540) % 360 - 180; // past 180 degrees it goes on
            before = now;
            const roll = view.roll + turned;
            return { roll: shiftKey ? SNAP * Math.round(roll / SNAP) : roll };
        };
    },

    /** Return the numbers after the wheel was turned by pixels. */
    wheel: (view, pixels) => ({ zoom: view.zoom * Math.exp(-pixels / 1000) }),

    /** Return the numbers after a key; undefined for a key that changes none. With Shift they change more. */
    key(view, key, isLarge) {
        const by = isLarge ? 10 : 1;
        return {
            ArrowLeft: () => ({ x: view.x - 0.01 * by }),
            ArrowRight: () => ({ x: view.x + 0.01 * by }),
            ArrowUp: () => ({ y: view.y - 0.01 * by }),
            ArrowDown: () => ({ y: view.y + 0.01 * by }),
            "+": () => ({ zoom: view.zoom * 1.02 }),
            "=": () => ({ zoom: view.zoom * 1.02 }),
            "-": () => ({ zoom: view.zoom / 1.02 }),
            "_": () => ({ zoom: view.zoom / 1.02 }),
            "[": () => ({ roll: view.roll - 1 }),
            "]": () => ({ roll: view.roll + 1 }),
            "{": () => ({ roll: view.roll - 10 }),
            "}": () => ({ roll: view.roll + 10 }),
        }[key]?.();
    },
};

function cornersOf(view, { picture, aspect, fov }) {
    const matrix = frameMatrix(view, picture, aspect, fov);
    return CORNERS.map((corner) => apply(matrix, corner));
}

function centreOf(view, { picture, aspect, fov }) {
    return apply(frameMatrix(view, picture, aspect, fov), [0, 0]);
}

/** Return views along a path: with perspective its centre does not move on straight lines. */
function wayOf({ keyframes }) {
    const [first, last] = [keyframes[0].t, keyframes.at(-1).t];
    const places = Array.from({ length: WAY }, (_, n) => first + (last - first) * n / WAY);
    return [...keyframes.map(({ t }) => t), ...places].sort((one, other) => one - other)
        .map((place) => between(keyframes, place));
}

/** Return the middle of a frame's upper edge, and the place of the handle above it. */
function turnHandle([upperLeft, upperRight, lowerRight, lowerLeft]) {
    const middle = (one, other) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
    const top = middle(upperLeft, upperRight);
    const up = minus(top, middle(lowerLeft, lowerRight));
    const length = Math.hypot(...up) || 1;
    return [top, [top[0] + up[0] / length * TURN_AWAY, top[1] + up[1] / length * TURN_AWAY]];
}
