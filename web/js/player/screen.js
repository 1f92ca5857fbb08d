import { text } from "../text.js";
import { element } from "./element.js";

/** One clip's picture, by the number of its frame. A video element alone: no frame is kept. */
export class Screen {
    /** @param {() => void} onChange told when another frame is shown, and when the clip turns out not to play */
    constructor(onChange) {
        this.onChange = onChange;
        this.clip = null;
        /** Number of the frame that is shown, and of the one that is asked for; from 0. */
        this.frame = this.wanted = 0;
        this.isBroken = false;
        this.video = element("video", { playsInline: true, preload: "auto", muted: true });
        this.fault = element("p", { hidden: true, "aria-live": "polite" });
        this.name = element("span");
        this.element = element("div", { className: "wan22-player-screen" }, this.video, this.name, this.fault);
        this.video.addEventListener("loadedmetadata", () => this.#loaded());
        this.video.addEventListener("seeked", () => this.#arrived());
        this.video.addEventListener("error", () => this.#explain());
        this.#watch();
    }

    /** Show a clip, from its first frame. */
    show(clip) {
        this.clip = clip;
        this.frame = this.wanted = 0;
        delete this.element.dataset.frame;
        this.name.textContent = this.name.title = clip.name;
        this.fault.hidden = true;
        this.isBroken = false;
        this.video.src = clip.url;
    }

    /** Go to a frame. While one is fetched, only the last one asked for is remembered. */
    seek(frame) {
        this.wanted = frame;
        if (this.video.readyState >= HTMLMediaElement.HAVE_METADATA && !this.video.seeking) this.#go();
    }

    /** Give the file and its decoder back. */
    release() {
        this.clip = null;
        this.video.pause();
        this.video.removeAttribute("src");
        this.video.load();
    }

    #go() {
        this.going = this.wanted;
        this.video.currentTime = this.clip.middle(this.going);
    }

    #loaded() {
        if (this.video.videoWidth === 0) this.#explain(); // of a codec unknown to the browser, the sound plays alone
        else this.#go();
    }

    #arrived() {
        if (!this.clip) return;
        if (this.video.paused && this.going !== this.wanted) this.#go();
        else this.#tell(this.clip.frameAt(this.video.currentTime));
    }

    /** Hear of each frame while the clip plays. */
    #watch() {
        this.video.requestVideoFrameCallback((now, { mediaTime }) => {
            if (this.clip && !this.video.paused) this.#tell(this.clip.frameAt(mediaTime));
            this.#watch();
        });
    }

    #tell(frame) {
        this.frame = this.element.dataset.frame = frame;
        this.onChange();
    }

    async #explain() {
        const clip = this.clip;
        if (!clip) return;
        const answer = await fetch(clip.url, { method: "HEAD" }).catch(() => null);
        if (this.clip !== clip) return;
        const why = !answer ? "no-server" : answer.ok ? "cannot-play" : "gone";
        this.fault.textContent = text(`player.${why}`, { name: clip.name, format: `${clip.codec}, ${clip.pixFmt}` });
        this.fault.hidden = false;
        this.isBroken = true;
        this.onChange();
    }
}
