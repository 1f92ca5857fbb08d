import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { ask } from "../server.js";
import { text } from "../text.js";

/** @typedef {import("./list.js").Job} Job */

/** Say something in ComfyUI's own way. @param {"info" | "success" | "warn" | "error"} severity */
export function toast(severity, summary, detail = "", life = 6000) {
    app.extensionManager.toast.add({ severity, summary, detail, life });
}

/** Where the file of a job is. @param {Job} job */
export function address(job) {
    return api.apiURL(`/view?${new URLSearchParams(job.file)}`);
}

/**
 * Stop the run that makes a job, once the user has agreed to what that means.
 * @param {Job} job
 * @param {number} others jobs that the same run makes beside it
 * @returns {Promise<boolean>} whether it was stopped
 */
export async function cancel(job, others) {
    const warnings = [
        job.remote && !job.cancels && job.sent && text("jobs.cancel.billed", { provider: job.provider }),
        job.remote && job.cancels && job.sent && text("jobs.cancel.called", { provider: job.provider }),
        job.remote && !job.sent && text("jobs.cancel.unsent"),
        others > 0 && text("jobs.cancel.others", { others }),
    ].filter(Boolean);
    const message = warnings.join("\n");
    const agreed = !warnings.length || (await app.extensionManager.dialog.confirm({ title: text("jobs.cancel.title"), message }));
    if (!agreed) return false;
    const answer = await api.fetchApi(`/jobs/${encodeURIComponent(job.run)}/cancel`, { method: "POST" });
    if (!answer.ok) throw new Error(await answer.text());
    const { cancelled } = await answer.json();
    if (!cancelled) toast("info", text("jobs.cancel.over"));
    return cancelled;
}

/** Queue a run that waits for a job that is there already, or fetches its file again. @param {Job} job */
export async function resume(job) {
    const answer = await api.fetchApi("/prompt", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ client_id: api.clientId, prompt: resumeGraph(job, "wan22-") }),
    });
    if (!answer.ok) throw new Error((await answer.json()).error?.message ?? answer.statusText);
    toast("info", text("jobs.resume.queued"));
}

/** Open a workflow in which the user says what became of a job. @param {Job} job */
export function settle(job) {
    app.loadApiJson(resumeGraph(job, ""), text("jobs.settle.name", { job: job.id.slice(0, 8) }));
    for (const node of app.graph.nodes) if (node.type === "Wan22ResumeRemoteClip") node.showAdvanced = true;
    toast("info", text("jobs.settle.title"), text("jobs.settle.how", { provider: job.provider }), 30000);
}

/** In API form. Its ids name no node of the canvas when they are given a prefix. */
function resumeGraph(job, prefix) {
    return {
        [`${prefix}1`]: { class_type: "Wan22ResumeRemoteClip", inputs: { job: job.id, remote_id: "", action: "resume" } },
        [`${prefix}2`]: { class_type: "PreviewAny", inputs: { source: [`${prefix}1`, 2] } },
    };
}

/** Put what was asked into the clipboard, as JSON. @param {Job} job */
export async function copyRequest(job) {
    const words = JSON.stringify(await ask(`jobs/${encodeURIComponent(job.id)}/request`), null, 2);
    try {
        await navigator.clipboard.writeText(words);
    } catch {
        copyFromPage(words); // over plain http to another machine a page has no clipboard
    }
    toast("success", text("jobs.copied"), "", 3000);
}

function copyFromPage(words) {
    const place = document.createElement("textarea");
    place.value = words;
    document.body.append(place);
    place.select();
    const done = document.execCommand("copy");
    place.remove();
    if (!done) throw new Error(text("jobs.notCopied"));
}

/** Open the workflow that made a job, beside those that are open. @param {Job} job */
export async function loadWorkflow(job) {
    const { workflow, graph, shortened } = await ask(`jobs/${encodeURIComponent(job.id)}/workflow`);
    const name = text("jobs.workflow.name", { job: job.id.slice(0, 8) });
    if (workflow) await app.loadGraphData(workflow, true, true, name);
    else app.loadApiJson(graph, name);
    if (shortened) toast("warn", text("jobs.workflow.shortened"), text("jobs.workflow.shortenedHow"), 15000);
}
