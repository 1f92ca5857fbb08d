/**
 * Add a style sheet of web/css/ to the page.
 * @param {string} name without .css
 */
export function addStyle(name) {
    const link = document.createElement("link");
    link.rel = "stylesheet";
    link.href = new URL(`../css/${name}.css`, import.meta.url).href;
    document.head.append(link);
}
