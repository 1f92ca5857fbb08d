import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { addStyle } from "../style.js";
import { text } from "../text.js";
import { JobList } from "./list.js";
import { JobPanel } from "./panel.js";

const RUN_EVENTS = ["status", "execution_start", "execution_success", "execution_error", "execution_interrupted"];
const list = new JobList();
let panel = null;

/** Heard while the tab is closed too: an event that nobody has asked for is an error to the canvas. */
function listen() {
    for (const name of ["wan22.jobs", ...RUN_EVENTS]) api.addEventListener(name, () => panel && list.refresh());
    api.addEventListener("progress_state", ({ detail }) => panel && list.takeProgress(detail));
    api.addEventListener("reconnected", () => panel && list.load());
}

app.registerExtension({
    name: "wan22.jobs",
    setup() {
        addStyle("jobs");
        listen();
        app.extensionManager.registerSidebarTab({
            id: "wan22-jobs",
            icon: "pi pi-video",
            title: text("jobs.title"),
            label: text("jobs.label"),
            tooltip: text("jobs.tooltip"),
            type: "custom",
            render(element) {
                if (panel?.element.parentElement === element) return; // Vue asks again whenever it draws
                panel?.close();
                panel = new JobPanel(list);
                element.style.height = "100%";
                element.replaceChildren(panel.element);
                list.load();
            },
            destroy() {
                panel?.close();
                panel = null;
            },
        });
    },
});
