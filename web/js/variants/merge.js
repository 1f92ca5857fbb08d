const OVER = ["done", "failed", "canceled", "lost"];
/** What a run came to: final, once it is over. */
const OUTCOME = ["state", "error", "file"];
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** @typedef {import("./list.js").Variant} Variant */

/**
 * Return a page's variants with what other pages did to the file since: what each side added, changed or discarded
 * counts. A page's own variants stay the same objects, in their order.
 * @param {Variant[]} theirs as the file has them now
 * @param {Variant[]} before as it had them when the page last saw it
 * @param {Variant[]} own
 * @returns {Variant[]}
 */
export function takeOver(theirs, before, own) {
    const [inFile, known, here] = [theirs, before, own].map((list) => new Map(list.map((one) => [one.job, one])));
    const stay = own.filter(({ job }) => inFile.has(job) || !known.has(job)); // the others were discarded elsewhere
    for (const variant of stay)
        if (inFile.has(variant.job)) update(variant, inFile.get(variant.job), known.get(variant.job) ?? {});
    return [...stay, ...theirs.filter(({ job }) => !here.has(job) && !known.has(job))];
}

function update(variant, theirs, before) {
    const [isOver, isOverThere] = [variant, theirs].map(({ state }) => OVER.includes(state));
    for (const [name, value] of Object.entries(theirs)) {
        // A page that has an earlier state than the other one has not heard of the end yet.
        const isLate = OUTCOME.includes(name) && isOver !== isOverThere;
        if (isLate ? isOverThere : same(variant[name], before[name])) variant[name] = value;
    }
}
