import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { toast } from "../jobs/actions.js";
import { JobList } from "../jobs/list.js";
import { addStyle } from "../style.js";
import { text } from "../text.js";
import { VariantList } from "./list.js";
import { VariantPanel } from "./panel.js";

const RUN_EVENTS = ["status", "execution_start", "execution_success", "execution_error", "execution_interrupted"];
const jobs = new JobList();
const list = new VariantList(jobs);
let panel = null;

const onError = (error) =>
    toast("error", text("variants.title"), error instanceof TypeError ? text("jobs.gone") : error.message);
const load = () => jobs.load().then(() => list.load()).catch(onError);

list.addEventListener("fault", ({ detail }) => onError(detail));
for (const name of ["wan22.jobs", ...RUN_EVENTS]) api.addEventListener(name, () => panel && jobs.refresh());
api.addEventListener("progress_state", ({ detail }) => panel && jobs.applyProgress(detail));
api.addEventListener("reconnected", () => panel && load());

app.registerExtension({
    name: "wan22.variants",
    setup() {
        addStyle("variants");
        app.extensionManager.registerSidebarTab({
            id: "wan22-variants",
            icon: "pi pi-th-large",
            title: text("variants.title"),
            label: text("variants.label"),
            tooltip: text("variants.tooltip"),
            type: "custom",
            render(element) {
                if (panel?.element.parentElement === element) return; // Vue calls this whenever it draws
                panel?.close();
                panel = new VariantPanel(list, onError);
                element.style.height = "100%";
                element.replaceChildren(panel.element);
                load();
            },
            destroy() {
                panel?.close();
                panel = null;
            },
        });
    },
});
