/** Frames a second of a clip of Wan 2.2. */
const RATE = 16;

/** Frames that are shown at the rate of a clip, again and again. */
export class Animation {
    isRunning = false;

    /**
     * @param {number} first frame to show, from 0
     * @param {number} count of frames
     * @param {(frame: number) => void} show
     */
    start(first, count, show) {
        const start = performance.now() - first / RATE * 1000;
        const tick = (now) => {
            if (!this.isRunning) return;
            show(Math.floor(Math.max(0, now - start) * RATE / 1000) % count);
            requestAnimationFrame(tick);
        };
        this.isRunning = true;
        requestAnimationFrame(tick);
    }

    stop() {
        this.isRunning = false;
    }
}
