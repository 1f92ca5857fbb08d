import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { addStyle } from "../style.js";
import { text } from "../text.js";
import { JobList } from "./list.js";
import { JobPanel } from "./panel.js";

const RUN_EVENTS = ["status", "execution_start", "execution_success", "execution_error", "execution_interrupted"];
const list = new JobList();
let panel = null;

// Before the setup, and while the tab is closed: the canvas reports an event without a listener as an error.
for (const name of ["wan22.jobs", ...RUN_EVENTS]) api.addEventListener(name, () => panel && list.refresh());
api.addEventListener("progress_state", ({ detail }) => panel && list.applyProgress(detail));
api.addEventListener("reconnected", () => panel && list.load());

app.registerExtension({
    name: "wan22.jobs",
    setup() {
        addStyle("jobs");
        app.extensionManager.registerSidebarTab({
            id: "wan22-jobs",
            icon: "pi pi-video",
            title: text("jobs.title"),
            label: text("jobs.label"),
            tooltip: text("jobs.tooltip"),
            type: "custom",
            render(element) {
                if (panel?.element.parentElement === element) return; // Vue calls this whenever it draws
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
