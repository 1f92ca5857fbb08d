import { api } from "../../../../scripts/api.js";
import { app } from "../../../../scripts/app.js";
import { request } from "../server.js";
import { text } from "../text.js";

/** @typedef {import("./list.js").Job} Job */

/** Show one of ComfyUI's toasts. @param {"info" | "success" | "warn" | "error"} severity */
export function toast(severity, summary, detail = "", life = 6000) {
    app.extensionManager.toast.add({ severity, summary, detail, life });
}

/** Return the URL of a job's file. @param {Job} job */
export function fileUrl(job) {
    return api.apiURL(`/view?${new URLSearchParams(job.file)}`);
}

/**
 * Stop the run that makes a job, after the user has confirmed the consequences.
 * @param {Job} job
 * @param {number} others number of other jobs that the same run makes
 * @returns {Promise<boolean>} whether it was stopped
 */
export async function cancel(job, others) {
    if (!(await confirmStop([job], others))) return false;
    const cancelled = await stopRun(job.run);
    if (!cancelled) toast("info", text("jobs.cancel.over"));
    return cancelled;
}

/**
 * Ask whether jobs may be stopped, if that has consequences: each is told once, however many jobs have it.
 * @param {Job[]} jobs
 * @param {number} [others] number of other jobs that stop with them
 * @returns {Promise<boolean>} whether they may
 */
export async function confirmStop(jobs, others = 0) {
    const warnings = [
        ...jobs.filter(({ remote }) => remote).map(consequence),
        ...(others > 0 ? [text("jobs.cancel.others", { others })] : []),
    ];
    const question = { title: text("jobs.cancel.title"), message: [...new Set(warnings)].join("\n") };
    return !warnings.length || Boolean(await app.extensionManager.dialog.confirm(question));
}

/** Return what stopping a remote job leads to. @param {Job} job */
function consequence({ sent, cancels, own_server, provider }) {
    if (!sent) return text("jobs.cancel.unsent");
    if (!cancels) return text("jobs.cancel.billed", { provider });
    return text(`jobs.cancel.${own_server ? "free" : "called"}`, { provider });
}

/**
 * Take a run out of ComfyUI's queue, or interrupt it.
 * @param {string} run its id
 * @returns {Promise<boolean>} false when it was over already, or is not known
 */
export async function stopRun(run) {
    const response = await api.fetchApi(`/jobs/${encodeURIComponent(run)}/cancel`, { method: "POST" });
    if (!response.ok) throw new Error((await response.text()) || `${response.status} ${response.statusText}`);
    return (await response.json()).cancelled;
}

/** Queue a run that waits for a submitted job, or downloads its file again. @param {Job} job */
export async function resume(job) {
    const response = await api.fetchApi("/prompt", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ client_id: api.clientId, prompt: resumeGraph(job, "wan22-") }),
    });
    if (!response.ok) throw new Error((await response.json()).error?.message ?? response.statusText);
    toast("info", text("jobs.resume.queued"));
}

/** Open a workflow in which the user settles whether the provider accepted a job. @param {Job} job */
export async function settle(job) {
    await app.loadApiJson(resumeGraph(job, ""), text("jobs.settle.name", { job: job.id.slice(0, 8) }));
    for (const node of app.graph.nodes) if (node.type === "Wan22ResumeRemoteClip") node.showAdvanced = true;
    const how = job.own_server ? "jobs.settle.howOwn" : "jobs.settle.how";
    toast("info", text("jobs.settle.title"), text(how, { provider: job.provider }), 30000);
}

/** Return a graph in API form. prefix: keeps its ids apart from those of the canvas. */
function resumeGraph(job, prefix) {
    const inputs = { job: job.id, remote_id: "", action: "resume" };
    return {
        [`${prefix}1`]: { class_type: "Wan22ResumeRemoteClip", inputs },
        [`${prefix}2`]: { class_type: "PreviewAny", inputs: { source: [`${prefix}1`, 2] } },
    };
}

/** Copy the request to the clipboard, as JSON. @param {Job} job */
export async function copyRequest(job) {
    const json = JSON.stringify(await request(`jobs/${encodeURIComponent(job.id)}/request`), null, 2);
    try {
        await navigator.clipboard.writeText(json);
    } catch {
        copyFromPage(json); // over plain http to another machine a page has no clipboard
    }
    toast("success", text("jobs.copied"), "", 3000);
}

function copyFromPage(json) {
    const field = document.createElement("textarea");
    field.value = json;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (!done) throw new Error(text("jobs.notCopied"));
}

/** Open the workflow that made a job in a new tab. @param {Job} job */
export async function loadWorkflow(job) {
    const { workflow, graph, shortened } = await request(`jobs/${encodeURIComponent(job.id)}/workflow`);
    const name = text("jobs.workflow.name", { job: job.id.slice(0, 8) });
    if (workflow) await app.loadGraphData(workflow, true, true, name);
    else await app.loadApiJson(graph, name);
    if (shortened) toast("warn", text("jobs.workflow.shortened"), text("jobs.workflow.shortenedHow"), 15000);
}
