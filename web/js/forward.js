import { app } from "../../../scripts/app.js";

/** Let wheel and middle button act on the classic canvas over an element too; Nodes 2.0 does so itself. */
export function forwardToCanvas(element) {
    const pass = (event) => {
        if (window.LiteGraph.vueNodesMode) return;
        event.preventDefault();
        app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event));
    };
    element.addEventListener("wheel", pass);
    for (const kind of ["pointerdown", "pointermove", "pointerup"])
        element.addEventListener(kind, (event) => (event.button === 1 || event.buttons & 4) && pass(event));
}
