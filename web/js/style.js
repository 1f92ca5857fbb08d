const added = new Set();

/**
 * Add a style sheet of web/css/ to the page, once.
 * @param {string} name without .css
 */
export function addStyle(name) {
    if (added.has(name)) return;
    added.add(name);
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL(`../css/${name}.css`, import.meta.url).href;
    document.head.append(link);
}
