const PAUSE = 250;
const TYPING = 200;

/**
 * Hear of changes of some inputs of a node: by the user, by loading and pasting, by links. Nothing is told while one
 * change follows another.
 * @param {object} node
 * @param {string[]} names inputs, with a widget or without
 * @param {(byUser: Set<string>, loaded: boolean) => void} changed byUser: inputs whose widgets the user changed since
 *     the last call; loaded: whether the node got its values from a file or a copy since then
 */
export function watchInputs(node, names, changed) {
    let loading = false;
    let loaded = false;
    let timer = 0;
    let byUser = new Set();
    const hooked = new WeakSet();

    const tell = () => {
        hook(); // widgets come and go with another provider
        const told = [byUser, loaded];
        byUser = new Set();
        loaded = false;
        changed(...told);
    };
    const later = () => {
        clearTimeout(timer);
        timer = setTimeout(tell, PAUSE);
    };
    const hook = () => {
        for (const widget of node.widgets ?? []) {
            if (!names.includes(widget.name) || hooked.has(widget)) continue;
            hooked.add(widget);
            after(widget, "callback", () => {
                if (!loading) byUser.add(widget.name);
                later();
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
            later();
        }
    };
    after(node, "onConnectionsChange", later);
    after(node, "onRemoved", () => clearTimeout(timer));
    hook();
    later();
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
 * The inputs as the routes take them.
 * @param {object} node
 * @param {string[]} names
 * @returns {{inputs: Record<string, unknown>, linked: string[]}}
 */
export function readInputs(node, names) {
    const linked = names.filter((name) => node.inputs?.some((input) => input.name === name && input.link != null));
    const widgets = (node.widgets ?? []).filter((widget) => names.includes(widget.name) && !linked.includes(widget.name));
    return { inputs: Object.fromEntries(widgets.map((widget) => [widget.name, widget.value])), linked };
}

/** @returns {Promise<void>} once no text is being typed: after Enter, or when the field is left */
export function typingEnded() {
    const field = document.activeElement;
    if (!field?.matches?.("input, textarea")) return Promise.resolve();
    return new Promise((done) => {
        const look = setInterval(() => document.activeElement === field && field.isConnected || end(), TYPING);
        const end = () => {
            clearInterval(look);
            field.removeEventListener("change", end);
            done();
        };
        field.addEventListener("change", end);
    });
}

/**
 * Calls that overtake one another: only the last one is of interest.
 * @returns {<T>(work: (overtaken: () => boolean) => Promise<T>) => Promise<T | undefined>} undefined for one that was
 *     overtaken, which its work can ask
 */
export function lastOnly() {
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
