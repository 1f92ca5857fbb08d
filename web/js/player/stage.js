import { element } from "../element.js";
import { Screen } from "./screen.js";

/** Offset of the second clip in seconds above which it seeks. */
const SEEK_OFFSET = 0.3;
/** Offset in seconds below which nothing is done; in between, its playback rate is changed. */
const TOLERANCE = 0.004;
/** Change of the playback rate per second of offset, and its maximum. */
const GAIN = 2;
const MAX_GAIN = 0.3;

/** One clip, or two in sync: side by side, or the second one to the right of a wipe. */
export class Stage {
    /** @param {() => void} onChange called when anything changes that the controls show */
    constructor(onChange) {
        this.onChange = onChange;
        this.first = new Screen(() => this.#changed());
        this.second = new Screen(onChange);
        this.isPlaying = false;
        this.isLooped = true;
        this.speed = 1;
        this.isVisible = false;
        this.element = element("div", { className: "wan22-player-stage" }, this.first.element, this.second.element);
        this.first.video.addEventListener("ended", () => this.isPlaying && this.seek(this.first.clip.count - 1));
        this.first.element.addEventListener("click", () => this.toggle());
        this.observer = new IntersectionObserver((seen) => this.#setVisible(seen.at(-1).isIntersecting));
        this.observer.observe(this.element);
        this.setLayout("side");
    }

    /** Show a clip, from its first frame and paused. */
    show(clip) {
        this.pause();
        this.first.show(clip);
        this.#sync();
        this.ratio = clip.height / clip.width;
        this.element.style.setProperty("--wan22-ratio", this.ratio);
    }

    /** Show a second clip with it, or none. */
    compare(clip) {
        if (clip) this.second.show(clip);
        else this.second.release();
        this.setLayout(this.view);
        if (clip) this.#sync();
        this.#setRates();
        this.onChange();
    }

    /** @param {"side" | "wipe"} view of two clips */
    setLayout(view) {
        this.view = view;
        this.element.dataset.view = this.second.clip ? view : "one";
    }

    /** @param {number} position of the wipe: 0 shows the second clip alone, 1 the first one */
    setWipe(position) {
        this.element.style.setProperty("--wan22-wipe", position);
    }

    play() {
        if (this.first.frame === this.first.clip.count - 1) this.first.video.currentTime = 0;
        this.isPlaying = true;
        this.#start();
        this.onChange();
    }

    pause() {
        if (!this.isPlaying) return;
        this.isPlaying = false;
        this.#setRates();
        this.#stop();
        this.onChange();
    }

    toggle() {
        if (this.isPlaying) this.pause();
        else if (!this.first.isBroken) this.play();
    }

    /** Go to a frame of the first clip, paused. */
    seek(frame) {
        this.pause();
        this.first.seek(Math.min(this.first.clip.count - 1, Math.max(0, frame)));
        this.#sync();
        this.onChange();
    }

    loop(isLooped) {
        this.isLooped = isLooped;
        this.#setRates();
    }

    setSpeed(speed) {
        this.speed = speed;
        this.#setRates();
    }

    /** Release both clips. */
    release() {
        this.isPlaying = false;
        this.observer.disconnect();
        this.first.release();
        this.second.release();
    }

    #setVisible(isVisible) {
        this.isVisible = isVisible;
        if (!this.isPlaying) return;
        if (isVisible) this.#start();
        else this.#stop();
    }

    /** A clip out of view does not play. */
    async #start() {
        if (!this.isVisible) return;
        this.#setRates();
        this.#correct();
        try {
            await this.first.video.play();
        } catch (error) {
            if (error.name !== "AbortError") this.pause(); // the browser requires a click first, or cannot play it
        }
    }

    #stop() {
        for (const { clip, video } of [this.first, this.second]) if (clip) video.pause();
        if (this.first.clip) this.first.seek(this.first.frame);
        this.#sync();
    }

    /** Seek the second clip, paused, to the time of the first one. */
    #sync() {
        const [first, second] = [this.first, this.second];
        if (first.clip && second.clip) second.seek(second.clip.frameAt(first.clip.middle(first.target)));
    }

    get #sameLength() {
        const [one, other] = [this.first.clip, this.second.clip];
        return one?.count === other?.count && one?.rate === other?.rate;
    }

    /** A clip that is paused does not loop: Chromium may take its last frame for the end, and go to the first one. */
    #setRates() {
        this.first.video.loop = this.isLooped && this.isPlaying;
        this.second.video.loop = this.first.video.loop && this.#sameLength;
        this.first.video.playbackRate = this.second.video.playbackRate = this.speed;
    }

    #changed() {
        if (!this.first.video.paused) this.#correct();
        this.onChange();
    }

    /** Keep two videos that started at slightly different moments in sync: change the second one's rate, or seek. */
    #correct() {
        const [lead, video] = [this.first.video, this.second.video];
        if (!this.second.clip || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA || video.seeking) return;
        if (lead.currentTime >= video.duration) return; // a shorter clip stays on its last frame
        let late = lead.currentTime - video.currentTime;
        if (this.#sameLength) late -= lead.duration * Math.round(late / lead.duration);
        const change = Math.abs(late) < TOLERANCE ? 0 : Math.min(MAX_GAIN, Math.max(-MAX_GAIN, GAIN * late));
        if (video.ended || Math.abs(late) > SEEK_OFFSET) video.currentTime = lead.currentTime;
        else video.playbackRate = this.speed * (1 + change);
        if (video.paused) video.play().catch(() => {});
    }
}
