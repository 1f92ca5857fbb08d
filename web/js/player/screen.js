import { text } from "../text.js";
import { element } from "../element.js";

/** The picture of one clip, addressed by frame number. Only a video element: no frame is kept. */
export class Screen {
    /** @param {() => void} onChange called when another frame is shown, and when the clip cannot be played */
    constructor(onChange) {
        this.onChange = onChange;
        this.clip = null;
        /** Number of the frame that is shown, and of the one to go to; from 0. */
        this.frame = this.target = 0;
        this.isBroken = false;
        this.video = element("video", { playsInline: true, preload: "auto", muted: true });
        this.fault = element("p", { hidden: true, "aria-live": "polite" });
        this.name = element("span");
        this.element = element("div", { className: "wan22-player-screen" }, this.video, this.name, this.fault);
        this.video.addEventListener("loadedmetadata", () => this.#loaded());
        this.video.addEventListener("seeked", () => this.#seeked());
        this.video.addEventListener("error", () => this.#showFault());
        this.#watch();
    }

    /** Show a clip, from its first frame. */
    show(clip) {
        this.clip = clip;
        this.frame = this.target = 0;
        delete this.element.dataset.frame;
        this.name.textContent = this.name.title = clip.name;
        this.fault.hidden = true;
        this.isBroken = false;
        this.video.src = clip.url;
    }

    /** Go to a frame. Of several calls during one seek only the last counts. */
    seek(frame) {
        this.target = frame;
        if (this.video.readyState >= HTMLMediaElement.HAVE_METADATA && !this.video.seeking) this.#seekToTarget();
    }

    /** Release the file and its decoder. */
    release() {
        this.clip = null;
        this.video.pause();
        this.video.removeAttribute("src");
        this.video.load();
    }

    #seekToTarget() {
        this.seekingTo = this.target;
        this.video.currentTime = this.clip.middle(this.seekingTo);
    }

    #loaded() {
        if (this.video.videoWidth === 0) this.#showFault(); // with an unknown codec the browser plays only the sound
        else this.#seekToTarget();
    }

    #seeked() {
        if (!this.clip) return;
        if (this.video.paused && this.seekingTo !== this.target) this.#seekToTarget();
        else this.#setFrame(this.clip.frameAt(this.video.currentTime));
    }

    /** Follow each frame while the clip plays. */
    #watch() {
        this.video.requestVideoFrameCallback((now, { mediaTime }) => {
            if (this.clip && !this.video.paused) this.#setFrame(this.clip.frameAt(mediaTime));
            this.#watch();
        });
    }

    #setFrame(frame) {
        this.frame = this.element.dataset.frame = frame;
        this.onChange();
    }

    async #showFault() {
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
