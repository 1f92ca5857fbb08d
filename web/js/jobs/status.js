import { app } from "../../../../scripts/app.js";
import { text } from "../text.js";

const UNSENT = ["new", "uploading"];
const SUBMITTED = ["queued", "running", "downloading", "timed out"];

/** @typedef {import("./list.js").Job} Job */

/** Return whether it is not known if the provider has accepted the job. @param {Job} job */
export function isUnknown(job) {
    return job.remote && !job.run && (job.state === "submit unknown" || (job.state === "submitting" && job.sent));
}

/** Return whether it can be resumed: nobody waits for it, or its file has gone. @param {Job} job */
export function isResumable(job) {
    const fileGone = job.state === "done" && !job.file;
    return job.remote && !job.run && (SUBMITTED.includes(job.state) || isUnknown(job) || fileGone);
}

/** Return the status as text, and its tone: "busy", "good", "bad", "open" or "quiet". @param {Job} job */
export function status(job) {
    const provider = job.provider;
    if (job.state === "done" && job.remote && !job.file) return [text("jobs.state.fileGone"), "open"];
    if (job.state === "done") return [text("jobs.state.done"), "good"];
    if (job.state === "failed" || job.state === "lost") return [text(`jobs.state.${job.state}`, { provider }), "bad"];
    if (job.state === "canceled") return [text("jobs.state.canceled"), "quiet"];
    if (!job.remote) return [text(job.state === "queued" ? "jobs.state.waiting" : "jobs.state.atWork"), "busy"];
    if (!job.run) return unwatchedStatus(job);
    if (job.place !== null) return [text("jobs.state.place", { provider, place: job.place + 1 }), "busy"];
    return [text(`jobs.state.${job.state === "submit unknown" ? "looking" : job.state}`, { provider }), "busy"];
}

/** Return the same of a remote job that no run waits for. */
function unwatchedStatus(job) {
    if (isUnknown(job)) return [text("jobs.state.unknown", { provider: job.provider }), "open"];
    if (UNSENT.includes(job.state) || !job.sent) return [text("jobs.state.cutOff"), "quiet"];
    return [text("jobs.state.goesOn", { provider: job.provider }), "open"];
}

/** Return how long it took, or has taken so far; "" if not known. @param {Job} job @param {number} now seconds */
export function duration(job, now) {
    if (!job.began || !(job.ended || job.run)) return "";
    const seconds = Math.max(0, Math.round((job.ended ?? now) - job.began));
    if (seconds < 60) return text("jobs.seconds", { seconds });
    return text("jobs.minutes", { minutes: Math.floor(seconds / 60), seconds: String(seconds % 60).padStart(2, "0") });
}

/** Return US dollars with two decimals, three where two would round. @param {number} amount */
export function dollars(amount) {
    return `$${amount.toFixed(Math.abs(amount * 100 - Math.round(amount * 100)) < 1e-6 ? 2 : 3)}`;
}

/** Return the price, after a ≈ if it is an estimate; "" if it is not known, or nothing is billed. @param {Job} job */
export function price(job) {
    if (job.price === null || (job.price === 0 && ["failed", "canceled"].includes(job.state))) return "";
    const isExact = job.price === 0 || /^(billed|quoted) by /.test(job.price_source);
    return (isExact ? "" : "≈ ") + dollars(job.price);
}

/** Return the time of the request, without the date if that is today. @param {Job} job */
export function createdAt(job) {
    const date = new Date(job.created * 1000);
    const today = date.toDateString() === new Date().toDateString();
    return date.toLocaleString(app.extensionManager.setting.get("Comfy.Locale"), {
        ...(!today && { dateStyle: "short" }), timeStyle: "short" });
}

/** Return the progress of a local run, such as "Wan 2.2 Sampler: 12 of 30"; "" if not known. @param {Job} job */
export function progressText(job) {
    if (!job.run || !job.progress) return "";
    const { node, value, max } = job.progress;
    const title = window.LiteGraph?.registered_node_types[node]?.title ?? node;
    return max > 1 ? text("jobs.step", { node: title, value, max }) : title;
}
