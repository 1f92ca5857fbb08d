/** Longer side in pixels of what is cut out of a picture for the editor. */
const MOST_PIXELS = 1024;
/** Channel of a mask -> its place in a pixel. ComfyUI takes transparency for the mask: there, it is turned round. */
const CHANNELS = { red: 0, green: 1, blue: 2, alpha: 3 };

/**
 * Cut an object out of a picture.
 * @param {HTMLImageElement} picture
 * @param {HTMLImageElement} file the file that has the mask
 * @param {string} channel of the file that is the mask
 * @returns {{cut: string, hole: string, centre: [number, number], box: [number, number, number, number]} | null} the
 *     object and the place where it was, as addresses of pictures; in pixels of the picture, its centre, and its left,
 *     top, right and lower side; null if the mask is empty or of another size
 */
export function cutOut(picture, file, channel) {
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    if (file.naturalWidth !== width || file.naturalHeight !== height) return null;
    const scale = Math.min(1, MOST_PIXELS / Math.max(width, height));
    const [columns, rows] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const mask = draw(file, columns, rows);
    const pixels = mask.getImageData(0, 0, columns, rows);
    const { data } = pixels;
    let [sum, sumX, sumY] = [0, 0, 0];
    const box = [columns, rows, 0, 0];
    for (let n = 0; n < data.length; n += 4) {
        const value = channel === "alpha" ? 255 - data[n + 3] : data[n + CHANNELS[channel]];
        data[n + 3] = value;
        const [x, y] = [n / 4 % columns, Math.floor(n / 4 / columns)];
        sum += value;
        sumX += value * (x + 0.5);
        sumY += value * (y + 0.5);
        if (value > 127) grow(box, x, y);
    }
    if (!sum) return null;
    mask.putImageData(pixels, 0, 0);
    const cut = draw(picture, columns, rows);
    keepInside(cut, mask.canvas);
    const hole = hatched(columns, rows);
    keepInside(hole, mask.canvas);
    const centre = [sumX / sum / scale, sumY / sum / scale];
    return { cut: cut.canvas.toDataURL(), hole: hole.canvas.toDataURL(), centre,
        box: box.map((side) => side / scale) };
}

/** Let a box, its left, top, right and lower side, have a pixel in it. */
function grow(box, x, y) {
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x + 1);
    box[3] = Math.max(box[3], y + 1);
}

function draw(image, width, height) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (image) context.drawImage(image, 0, 0, width, height);
    return context;
}

function keepInside(context, mask) {
    context.globalCompositeOperation = "destination-in";
    context.drawImage(mask, 0, 0);
}

/** Return a canvas with the stripes that mean: the model makes this up (as in camera.css). */
function hatched(width, height) {
    const context = draw(null, width, height);
    const stripe = Math.max(width, height) / 60;
    context.fillStyle = "#3d3f44";
    context.fillRect(0, 0, width, height);
    context.strokeStyle = "#25272a";
    context.lineWidth = stripe / 2;
    for (let x = -height; x < width; x += stripe * Math.SQRT2) {
        context.moveTo(x, height);
        context.lineTo(x + height, 0);
    }
    context.stroke();
    return context;
}
