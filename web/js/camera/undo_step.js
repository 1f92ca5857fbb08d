/** Milliseconds without a change after which the next one is another step of undo. */
const BURST = 500;

/** Changes that ComfyUI takes for one step of undo: those of a drag, or of keys in quick succession. */
export class UndoStep {
    /**
     * @param {() => void} begin called before the first change
     * @param {() => void} end called after the last one
     */
    constructor(begin, end) {
        Object.assign(this, { begin, end });
        this.isOpen = false;
        this.timer = 0;
    }

    open() {
        clearTimeout(this.timer);
        if (!this.isOpen) this.begin();
        this.isOpen = true;
    }

    /** Open it, and close it after a while without another change. */
    openForBurst() {
        this.open();
        this.timer = setTimeout(() => this.close(), BURST);
    }

    close() {
        clearTimeout(this.timer);
        if (!this.isOpen) return;
        this.isOpen = false;
        this.end();
    }
}
