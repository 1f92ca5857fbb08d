/**
 * Where a camera's frame lies in a picture: what pipeline/motion/camera.py does. pipeline/motion/path.py says what the
 * numbers of a view mean.
 *
 * Matrices are 3 x 3 in rows, [a, b, c, d, e, f, g, h, i], and map points (x, y, 1).
 */

const RADIANS = Math.PI / 180;
/** Corners in the frame's own units: its width and height are 1, its centre is 0. */
export const CORNERS = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]];

export const multiply = (a, b) => a.map((_, n) => {
    const [row, column] = [n - n % 3, n % 3];
    return a[row] * b[column] + a[row + 1] * b[column + 3] + a[row + 2] * b[column + 6];
});

export function invert([a, b, c, d, e, f, g, h, i]) {
    const [A, B, C] = [e * i - f * h, f * g - d * i, d * h - e * g];
    const determinant = a * A + b * B + c * C;
    return [A, c * h - b * i, b * f - c * e, B, a * i - c * g, c * d - a * f, C, b * g - a * h, a * e - b * d]
        .map((value) => value / determinant);
}

export function apply([a, b, c, d, e, f, g, h, i], [x, y]) {
    const depth = g * x + h * y + i;
    return [(a * x + b * y + c) / depth, (d * x + e * y + f) / depth];
}

export const scaling = (x, y) => [x, 0, 0, 0, y, 0, 0, 0, 1];
export const translation = (x, y) => [1, 0, x, 0, 1, y, 0, 0, 1];

/** Return width and height in pixels of the largest frame in a picture, which is that of a camera at rest. */
export function frameSize({ width, height }, aspect) {
    return width / height > aspect ? [height * aspect, height] : [width, width / aspect];
}

/**
 * Return the matrix from the frame's own units to pixels of the picture.
 * @param {{x: number, y: number, zoom: number, roll: number, tilt: number, orbit: number}} view
 * @param {{width: number, height: number}} picture
 * @param {number} aspect
 * @param {number} fov the camera's horizontal angle of view in degrees
 */
export function frameMatrix({ x, y, zoom, roll, tilt, orbit }, picture, aspect, fov) {
    const focal = 0.5 / Math.tan(fov * RADIANS / 2);
    const [about, across, around] = [roll, tilt, orbit].map((degrees) => {
        const radians = degrees * RADIANS;
        return [Math.cos(radians), Math.sin(radians)];
    });
    const turnZ = [about[0], -about[1], 0, about[1], about[0], 0, 0, 0, 1];
    const turnX = [1, 0, 0, 0, across[0], -across[1], 0, across[1], across[0]];
    const turnY = [around[0], 0, -around[1], 0, 1, 0, around[1], 0, around[0]];
    const away = focal / zoom; // from the centre of what it sees
    const position = [x + around[1] * away, y / aspect, focal - around[0] * away];
    const depth = focal - position[2];
    const toPlane = [depth, 0, position[0], 0, depth, position[1], 0, 0, 1];
    const rays = [1, 0, 0, 0, 1 / aspect, 0, 0, 0, focal];
    const [width, height] = frameSize(picture, aspect);
    const toPixels = [width, 0, picture.width / 2, 0, height * aspect, picture.height / 2, 0, 0, 1];
    return [toPixels, toPlane, turnY, turnX, turnZ, rays].reduce(multiply);
}

/** Return a matrix as a CSS transform. */
export const toCSS = ([a, b, c, d, e, f, g, h, i]) =>
    `matrix3d(${[a, d, 0, g, b, e, 0, h, 0, 0, 1, 0, c, f, 0, i].map((value) => value.toFixed(9)).join(", ")})`;
