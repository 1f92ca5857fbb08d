import { text } from "../text.js";
import { Compare } from "./compare.js";
import { button, element, relabel, setPressed } from "../element.js";
import { Stage } from "./stage.js";

const SPEEDS = [0.25, 0.5, 1, 2];
/** Pixels, as in player.css: range of the picture's height; as in controls.css: the gap below it. */
const MIN_STAGE = 140;
const MAX_STAGE = 400;
const GAP = 4;

/** The player of a node's clips. */
export class Player {
    /**
     * @param {() => {name: string, clip: object}[]} others returns the clips to compare with
     * @param {() => void} onResize called when it needs another height
     */
    constructor(others, onResize) {
        this.clips = [];
        this.stage = new Stage(() => this.#update());
        this.compare = new Compare(this.stage, others);
        this.#build();
        this.observer = new ResizeObserver(onResize);
        this.observer.observe(this.bar);
        this.element.addEventListener("keydown", (event) => this.#key(event));
    }

    /** Show the clips of a run, starting with the first. */
    show(clips, { play = false } = {}) {
        this.clips = clips;
        this.choice.replaceChildren(...clips.map((clip, n) => new Option(
            text("player.which", { number: n + 1, count: clips.length, name: clip.name }), n)));
        this.choice.hidden = clips.length < 2;
        this.#put(clips[0]);
        if (play && !matchMedia("(prefers-reduced-motion: reduce)").matches) this.stage.play();
    }

    /** Return the height in pixels that it needs at a width. */
    minHeight(width) {
        return this.bar.offsetHeight + GAP + Math.min(MAX_STAGE, Math.max(MIN_STAGE, width * this.stage.ratio));
    }

    release() {
        this.observer.disconnect();
        this.stage.release();
        this.element.remove();
    }

    #put(clip) {
        this.clip = clip;
        this.stage.show(clip);
        this.range.max = clip.count - 1;
        this.facts.textContent = this.facts.title = clip.facts;
        this.open.href = this.download.href = clip.url;
        this.download.download = clip.name;
        this.#update();
    }

    #build() {
        const { stage, compare } = this;
        this.playing = button("play", text("player.play"), () => stage.toggle());
        this.back = button("angle-left", text("player.back"), () => this.#step(-1));
        this.on = button("angle-right", text("player.on"), () => this.#step(1));
        this.range = element("input", { type: "range", min: 0, value: 0, "aria-label": text("player.frame") });
        this.range.addEventListener("input", () => stage.seek(Number(this.range.value)));
        this.count = element("output", { "aria-live": "off" });
        this.looped = button("sync", text("player.loop"), () => this.#loop());
        this.sound = button("volume-off", text("player.unmute"), () => this.#mute());
        this.speed = element("select", { title: text("player.speed"), "aria-label": text("player.speed") },
            ...SPEEDS.map((speed) => new Option(`${speed}×`, speed, speed === 1, speed === 1)));
        this.speed.addEventListener("change", () => stage.setSpeed(Number(this.speed.value)));
        this.choice = element("select", { "aria-label": text("player.clip"), title: text("player.clip") });
        this.choice.addEventListener("change", () => this.#put(this.clips[this.choice.value]));
        this.open = this.#link("external-link", text("player.open"), { target: "_blank", rel: "noopener" });
        this.download = this.#link("download", text("player.download"), {});
        this.facts = element("small");
        this.bar = element("div", { className: "wan22-controls-bar" },
            element("div", { className: "wan22-controls-row" }, this.playing, this.back, this.range, this.on, this.count),
            element("div", { className: "wan22-controls-row" }, this.looped, this.sound, this.speed, compare.button,
                element("i"), button("expand", text("player.full-screen"), () => this.#fullScreen()), this.open,
                this.download),
            compare.bar, this.choice, this.facts);
        this.element = element("div", { className: "wan22-player wan22-controls", tabIndex: 0, "role": "group",
            "aria-label": text("player.name") }, stage.element, this.bar);
        this.#loop(true);
    }

    #link(icon, name, properties) {
        return element("a", { title: name, "aria-label": name, ...properties },
            element("i", { className: `pi pi-${icon}`, "aria-hidden": "true" }));
    }

    #step(by) {
        this.stage.seek((this.stage.isPlaying ? this.stage.first.frame : this.stage.first.target) + by);
    }

    #loop(isLooped = !this.stage.isLooped) {
        this.stage.loop(isLooped);
        setPressed(this.looped, isLooped);
    }

    #mute() {
        const { video } = this.stage.first;
        video.muted = !video.muted;
        this.#update();
    }

    #fullScreen() {
        if (document.fullscreenElement) document.exitFullscreen();
        else this.element.requestFullscreen().catch(() => {}); // not allowed in a frame of another page
    }

    #update() {
        if (!this.clip) return;
        const { first, isPlaying } = this.stage;
        const frame = isPlaying ? first.frame : first.target;
        const shown = text("player.of", { frame: frame + 1, count: this.clip.count });
        this.range.value = frame;
        this.range.setAttribute("aria-valuetext", shown);
        this.count.textContent = shown;
        relabel(this.playing, isPlaying ? "pause" : "play", text(isPlaying ? "player.pause" : "player.play"));
        const isMuted = first.video.muted || !this.clip.hasSound;
        const sound = !this.clip.hasSound ? "player.no-sound" : isMuted ? "player.unmute" : "player.mute";
        relabel(this.sound, isMuted ? "volume-off" : "volume-up", text(sound));
        this.sound.disabled = !this.clip.hasSound;
        for (const part of [this.playing, this.back, this.range, this.on]) part.disabled = first.isBroken;
    }

    /** Handle the player's keys and keep them from ComfyUI's own commands ("." fits the view there). */
    #key(event) {
        if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
        const { stage } = this;
        const done = {
            ",": () => this.#step(-1),
            ".": () => this.#step(1),
            Home: () => stage.seek(0),
            End: () => stage.seek(this.clip.count - 1),
            l: () => this.#loop(),
            m: () => this.clip.hasSound && this.#mute(),
            ...(event.target === this.element && { ArrowLeft: () => this.#step(-1), ArrowRight: () => this.#step(1) }),
            ...(!["BUTTON", "A"].includes(event.target.tagName) && { " ": () => stage.toggle() }),
        }[event.key];
        if (done) {
            event.preventDefault();
            if (!stage.first.isBroken) done();
        }
        if (done || event.key === " " || event.key.startsWith("Arrow")) event.stopPropagation();
    }
}
