/**
 * An element with its properties and children.
 * @param {string} name
 * @param {Record<string, any>} [properties] of the element; those with a dash in their names are attributes
 * @param {...(Node | string)} children
 */
export function element(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
        if (key.includes("-")) made.setAttribute(key, value);
        else made[key] = value;
    }
    made.append(...children);
    return made;
}

/**
 * A button that shows an icon of ComfyUI's (PrimeIcons) and says its name.
 * @param {string} icon without "pi-"
 * @param {string} name
 * @param {() => void} onclick
 */
export function button(icon, name, onclick) {
    return element("button", { type: "button", title: name, "aria-label": name, onclick },
        element("i", { className: `pi pi-${icon}`, "aria-hidden": "true" }));
}

/** Make a button of `button` another one. */
export function relabel(made, icon, name) {
    made.title = name;
    made.setAttribute("aria-label", name);
    made.firstChild.className = `pi pi-${icon}`;
}

/** Show that a button is in, or out. */
export function press(made, isIn) {
    made.setAttribute("aria-pressed", String(isIn));
}
