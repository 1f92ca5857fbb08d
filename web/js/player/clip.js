import { api } from "../../../../scripts/api.js";

const CODECS = { h264: "H.264", hevc: "HEVC", av1: "AV1", vp9: "VP9" };

/** A file, with the facts that the server sends with its name (clip_preview in pipeline/host/video.py). */
export class Clip {
    constructor(file) {
        const [times, over = 1] = file.fps.split("/").map(Number);
        this.name = file.filename;
        /** Frames a second. */
        this.rate = times / over;
        /** Number of frames. */
        this.count = file.num_frames;
        this.width = file.width;
        this.height = file.height;
        this.codec = CODECS[file.codec] ?? file.codec;
        this.pixFmt = file.pix_fmt;
        this.hasSound = file.has_sound;
        const { filename, subfolder, type } = file;
        this.id = [type, subfolder, filename].join("/");
        // The time keeps the browser from its cache: a name is reused after its file was deleted.
        this.url = api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type, t: Date.now() })}`);
    }

    /** Return the middle of a frame in seconds, so that no rounding leads to its neighbour. */
    middle(frame) {
        return (frame + 0.5) / this.rate;
    }

    /** Return the number, from 0, of the frame at a time; that of the last one after the end. */
    frameAt(seconds) {
        return Math.min(this.count - 1, Math.max(0, Math.floor(seconds * this.rate + 1e-3)));
    }

    /** Size, rate, length and encoding, in one line. */
    get facts() {
        const rate = `${Number(this.rate.toFixed(3))} fps`;
        const length = `${(this.count / this.rate).toFixed(1)} s`;
        const usual = this.pixFmt === "yuv420p" ? [] : [this.pixFmt];
        return [`${this.width}×${this.height}`, rate, length, this.codec, ...usual].join(" · ");
    }
}

/**
 * Return the clips in a node's output, in order.
 * @param {{images?: object[]} | undefined} output
 */
export function clipsOf(output) {
    return (output?.images ?? []).filter((file) => file?.fps && file.num_frames).map((file) => new Clip(file));
}
