const DEBOUNCE = 250; // milliseconds without a change before a callback
const POLL = 200; // milliseconds

/**
 * Watch inputs of a node for changes: by the user, by loading and pasting, by links. Changes in quick succession are
 * reported once.
 * @param {object} node
 * @param {string[]} names inputs, with a widget or without
 * @param {(byUser: Set<string>, loaded: boolean) => void} changed called once now and after changes. byUser: inputs
 *     whose widgets the user changed since the last call; loaded: whether a file or a copy set the values since then
 */
export function watchInputs(node, names, changed) {
    let loading = false;
    let loaded = false;
    let timer = 0;
    let byUser = new Set();
    const hooked = new WeakSet();

    const report = () => {
        hook(); // widgets come and go with another provider
        const changes = [byUser, loaded];
        byUser = new Set();
        loaded = false;
        changed(...changes);
    };
    const schedule = () => {
        clearTimeout(timer);
        timer = setTimeout(report, DEBOUNCE);
    };
    const hook = () => {
        for (const widget of node.widgets ?? []) {
            if (!names.includes(widget.name) || hooked.has(widget)) continue;
            hooked.add(widget);
            after(widget, "callback", () => {
                if (!loading) byUser.add(widget.name);
                schedule();
            });
        }
    };
    const configure = node.configure;
    node.configure = function (...given) {
        loading = true;
        try {
            return configure.apply(this, given);
        } finally {
            loading = false;
            loaded = true;
            byUser.clear();
            schedule();
        }
    };
    after(node, "onConnectionsChange", schedule);
    after(node, "onRemoved", () => clearTimeout(timer));
    hook();
    schedule();
}

function after(object, name, then) {
    const first = object[name];
    object[name] = function (...given) {
        const result = first?.apply(this, given);
        then();
        return result;
    };
}

/**
 * Return the inputs as the routes take them.
 * @param {object} node
 * @param {string[]} names
 * @returns {{inputs: Record<string, unknown>, linked: string[]}}
 */
export function readInputs(node, names) {
    const isLinked = (input, slot) => node.isInputConnected?.(slot) ?? input.link != null;
    const linkedInputs = (node.inputs ?? []).filter(isLinked).map((input) => input.name);
    const linked = names.filter((name) => linkedInputs.includes(name));
    const typed = (widget) => names.includes(widget.name) && !linked.includes(widget.name);
    const widgets = (node.widgets ?? []).filter(typed);
    return { inputs: Object.fromEntries(widgets.map((widget) => [widget.name, widget.value])), linked };
}

/** @returns {Promise<void>} resolves when no text is being typed: after Enter, or when the field loses focus */
export function typingEnded() {
    const field = document.activeElement;
    if (!field?.matches?.("input, textarea")) return Promise.resolve();
    return new Promise((done) => {
        const look = setInterval(() => document.activeElement === field && field.isConnected || end(), POLL);
        const end = () => {
            clearInterval(look);
            field.removeEventListener("change", end);
            done();
        };
        field.addEventListener("change", end);
    });
}

/**
 * Make a runner of concurrent calls of which only the latest counts.
 * @returns {<T>(work: (overtaken: () => boolean) => Promise<T>) => Promise<T | undefined>} undefined for a call that
 *     was overtaken, which its work can check
 */
export function latestOnly() {
    let last = 0;
    return async (work) => {
        const own = ++last;
        try {
            const result = await work(() => own !== last);
            return own === last ? result : undefined;
        } catch (error) {
            if (own === last) throw error;
            return undefined;
        }
    };
}
