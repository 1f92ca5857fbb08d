import { element } from "./element.js";
import { Screen } from "./screen.js";

/** Seconds that the second picture may be off before it jumps. */
const FAR = 0.3;
/** Seconds that nobody sees; in between it hurries or waits. */
const NEAR = 0.004;
/** How much faster it gets for each second that it is late, and at most. */
const HASTE = 2;
const MOST_HASTE = 0.3;

/** One clip, or two of them at the same time: beside each other, or the second one right of a wipe. */
export class Stage {
    /** @param {() => void} onChange told of all that the controls show */
    constructor(onChange) {
        this.onChange = onChange;
        this.first = new Screen(() => this.#changed());
        this.second = new Screen(onChange);
        this.isPlaying = false;
        this.isLooped = true;
        this.speed = 1;
        this.isVisible = false;
        this.element = element("div", { className: "wan22-player-stage" }, this.first.element, this.second.element);
        this.first.video.addEventListener("ended", () => this.seek(this.first.clip.count - 1));
        this.first.element.addEventListener("click", () => this.toggle());
        this.observer = new IntersectionObserver((seen) => this.#appear(seen.at(-1).isIntersecting));
        this.observer.observe(this.element);
        this.look("side");
    }

    /** Show a clip, from its first frame and paused. */
    show(clip) {
        this.pause();
        this.first.show(clip);
        this.#together();
        this.ratio = clip.height / clip.width;
        this.element.style.setProperty("--wan22-ratio", this.ratio);
    }

    /** Show another clip with it, or none. */
    compare(clip) {
        if (clip) this.second.show(clip);
        else this.second.release();
        this.look(this.view);
        if (clip) this.#together();
        this.#pace();
        this.onChange();
    }

    /** @param {"side" | "wipe"} view of two clips */
    look(view) {
        this.view = view;
        this.element.dataset.view = this.second.clip ? view : "one";
    }

    /** @param {number} place of the wipe: 0 the second clip alone, 1 the first one */
    wipe(place) {
        this.element.style.setProperty("--wan22-wipe", place);
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
        this.#together();
        this.onChange();
    }

    loop(isLooped) {
        this.isLooped = isLooped;
        this.#pace();
    }

    setSpeed(speed) {
        this.speed = speed;
        this.#pace();
    }

    /** Let go of both clips. */
    release() {
        this.isPlaying = false;
        this.observer.disconnect();
        this.first.release();
        this.second.release();
    }

    #appear(isVisible) {
        this.isVisible = isVisible;
        if (!this.isPlaying) return;
        if (isVisible) this.#start();
        else this.#stop();
    }

    /** Out of sight a clip waits. */
    async #start() {
        if (!this.isVisible) return;
        this.#pace();
        this.#keepUp();
        try {
            await this.first.video.play();
        } catch (error) {
            if (error.name !== "AbortError") this.pause(); // the browser wants a click first, or cannot play it
        }
    }

    #stop() {
        for (const { clip, video } of [this.first, this.second]) if (clip) video.pause();
        if (this.first.clip) this.first.seek(this.first.frame);
        this.#together();
    }

    /** The second clip, paused, to the time of the first one. */
    #together() {
        const [first, second] = [this.first, this.second];
        if (first.clip && second.clip) second.seek(second.clip.frameAt(first.clip.middle(first.wanted)));
    }

    get #areAlike() {
        const [one, other] = [this.first.clip, this.second.clip];
        return one?.count === other?.count && one?.rate === other?.rate;
    }

    #pace() {
        this.first.video.loop = this.isLooped;
        this.second.video.loop = this.isLooped && this.#areAlike;
        this.first.video.playbackRate = this.second.video.playbackRate = this.speed;
    }

    #changed() {
        if (!this.first.video.paused) this.#keepUp();
        this.onChange();
    }

    /** Two videos start at slightly different moments: the second one hurries, waits or jumps. */
    #keepUp() {
        const [lead, video] = [this.first.video, this.second.video];
        if (!this.second.clip || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA || video.seeking) return;
        if (lead.currentTime >= video.duration) return; // a shorter clip stays on its last frame
        let late = lead.currentTime - video.currentTime;
        if (this.#areAlike) late -= lead.duration * Math.round(late / lead.duration);
        const haste = Math.abs(late) < NEAR ? 0 : Math.min(MOST_HASTE, Math.max(-MOST_HASTE, HASTE * late));
        if (video.ended || Math.abs(late) > FAR) video.currentTime = lead.currentTime;
        else video.playbackRate = this.speed * (1 + haste);
        if (video.paused) video.play().catch(() => {});
    }
}
