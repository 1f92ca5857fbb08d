/**
 * A path as the widget `path` holds it, and its interpolation: what pipeline/motion/path.py does, which says what its
 * numbers mean.
 *
 * A path is {keyframes, easing, fov}; its keyframes are in order and have every number of their kind.
 */

const LIMITS = { t: [0, 1], x: [-10, 10], y: [-10, 10], zoom: [0.1, 10], roll: [-3600, 3600], tilt: [-60, 60],
    orbit: [-60, 60], fov: [5, 90] };
/** Of t, enough to tell frames of the longest clip apart. */
const DECIMALS = { t: 5, x: 4, y: 4, zoom: 4, roll: 2, tilt: 2, orbit: 2, fov: 2 };
export const DEFAULT_FOV = 50;
/** Of one path: far more than a person draws, and few enough to be drawn anew with every change. */
const MOST_KEYFRAMES = 1000;

/** Numbers of a keyframe, with their values where they are not given, and what else the path may have. */
export const CAMERA = { numbers: { x: 0, y: 0, zoom: 1, roll: 0, tilt: 0, orbit: 0 }, settings: ["easing", "fov"] };
export const OBJECT = { numbers: { x: 0, y: 0 }, settings: ["easing"], startsAtRest: true };

/** Progress of the clip, 0 to 1 -> place on the path, 0 to 1. */
export const EASINGS = {
    "linear": (progress) => progress,
    "ease-in": (progress) => progress * progress,
    "ease-out": (progress) => progress * (2 - progress),
    "ease-in-out": (progress) => progress * progress * (3 - 2 * progress),
};

/** Why a text is no path: the key of a text below "camera.fault" in the locales, and the values in it. */
export class PathError extends Error {
    /**
     * @param {string} key
     * @param {Record<string, string | number>} [values]
     * @param {"path" | "whole" | number} [where] the path, the path as the start of a sentence, or a keyframe's number
     */
    constructor(key, values = {}, where = "path") {
        super(key);
        Object.assign(this, { key, values, where });
    }
}

/**
 * Return the path in a text.
 * @param {string} text JSON
 * @param {typeof CAMERA | typeof OBJECT} kind
 * @throws {PathError} in the cases in which Python refuses it
 */
export function parsePath(text, kind) {
    const found = parseJSON(text);
    if (!isObject(found) || !Array.isArray(found.keyframes) || !found.keyframes.length)
        throw new PathError("keyframes");
    const count = found.keyframes.length;
    if (count > MOST_KEYFRAMES) throw new PathError("many", { count, most: MOST_KEYFRAMES });
    checkNames(found, ["keyframes", ...kind.settings], "path");
    const easing = found.easing === undefined ? "linear" : found.easing;
    if (typeof easing !== "string" || !Object.hasOwn(EASINGS, easing))
        throw new PathError("easing", { value: quoted(easing), names: Object.keys(EASINGS).join(", ") });
    const keyframes = [];
    for (const [n, keyframe] of found.keyframes.entries()) {
        const where = n + 1;
        if (!isObject(keyframe) || keyframe.t === undefined) throw new PathError("time", {}, where);
        checkNames(keyframe, ["t", ...Object.keys(kind.numbers)], where);
        keyframes.push(Object.fromEntries(Object.entries({ t: 0, ...kind.numbers })
            .map(([name, value]) => [name, readNumber(keyframe, name, value, where)])));
        const [before, now] = [keyframes[n - 1]?.t, keyframes[n].t];
        if (now <= before) throw new PathError("order", { now: short(now), before: short(before) }, where);
    }
    const path = { keyframes, easing, fov: readNumber(found, "fov", DEFAULT_FOV, "whole") };
    const { x, y } = between(keyframes, 0);
    if (kind.startsAtRest && (x || y)) throw new PathError("start", { x: short(x), y: short(y) });
    return path;
}

function parseJSON(text) {
    try {
        return JSON.parse(text);
    } catch (error) {
        throw new PathError("json", { error: error.message });
    }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const quoted = (value) => (typeof value === "string" ? `'${value}'` : JSON.stringify(value));
const short = (value) => Number(value.toPrecision(6));

function checkNames(found, allowed, where) {
    const unknown = Object.keys(found).find((name) => !allowed.includes(name));
    if (unknown !== undefined)
        throw new PathError("unknown", { name: quoted(unknown), names: allowed.join(", ") }, where);
}

function readNumber(found, name, otherwise, where) {
    const value = found[name] === undefined ? otherwise : found[name];
    const [least, most] = LIMITS[name];
    if (typeof value !== "number" || !(value >= least && value <= most))
        throw new PathError("number", { name, value: JSON.stringify(value), least, most }, where);
    return value;
}

/** Return a number inside its limits, with no more decimals than one sees. */
export function limited(name, value) {
    const [least, most] = LIMITS[name];
    return Number(Math.min(most, Math.max(least, value)).toFixed(DECIMALS[name])) + 0; // + 0: no -0
}

/** Return a path as text that a person can read and change; perspective is left out where there is none. */
export function formatPath({ keyframes, easing, fov }) {
    const flat = ["tilt", "orbit"].filter((name) => keyframes.every((keyframe) => !keyframe[name]));
    const kept = keyframes.map((keyframe) => Object.fromEntries(Object.entries(keyframe)
        .filter(([name]) => !flat.includes(name)).map(([name, value]) => [name, limited(name, value)])));
    const whole = { keyframes: kept, easing, ...(fov !== DEFAULT_FOV && { fov }) };
    return JSON.stringify(whole).replaceAll(",", ", ").replaceAll(":", ": ");
}

/** Return the numbers at a place of the path, 0 to 1: zoom changes by equal factors in equal times, the rest evenly. */
export function between(keyframes, place) {
    const after = keyframes.findIndex(({ t }) => t > place);
    if (after <= 0) return { ...keyframes.at(after), t: place };
    const [from, to] = [keyframes[after - 1], keyframes[after]];
    const share = (place - from.t) / (to.t - from.t);
    const mix = (name) => name === "zoom" ? from.zoom * (to.zoom / from.zoom) ** share
        : from[name] + (to[name] - from[name]) * share;
    return { ...Object.fromEntries(Object.keys(from).map((name) => [name, mix(name)])), t: place };
}

/** Return the place on the path in a frame of the clip, from 0. */
export function placeAt(easing, frame, count) {
    return EASINGS[easing](count > 1 ? frame / (count - 1) : 0);
}

/** Return the frame of the clip, from 0, that is nearest to a place on the path: the inverse of an easing. */
export function frameAt(easing, place, count) {
    let [low, high] = [0, 1];
    for (let n = 0; n < 30; n++) {
        const middle = (low + high) / 2;
        if (EASINGS[easing](middle) < place) low = middle;
        else high = middle;
    }
    return Math.round(high * (count - 1));
}

/** Return the number of the keyframe at a place, from 0, the nearest one; -1 if there is none. */
export function indexAt(keyframes, place) {
    const apart = keyframes.map(({ t }) => Math.abs(t - place));
    const least = Math.min(...apart);
    return least < 1e-4 ? apart.indexOf(least) : -1;
}

/** Return a path whose keyframe at a place has these numbers; a new one where there is none. */
export function withKeyframe(path, place, numbers) {
    const here = indexAt(path.keyframes, place);
    const t = here < 0 ? limited("t", place) : path.keyframes[here].t;
    const kept = path.keyframes.filter((_, n) => n !== here);
    const keyframes = [...kept, { ...between(path.keyframes, place), ...numbers, t }];
    return { ...path, keyframes: keyframes.sort((one, other) => one.t - other.t) };
}
