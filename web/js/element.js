/**
 * Return a new element with properties and children.
 * @param {string} name
 * @param {Record<string, any>} [properties] those with a dash in their names are set as attributes
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
 * Return a button with an icon of ComfyUI's (PrimeIcons) and an accessible name.
 * @param {string} icon without "pi-"
 * @param {string} name
 * @param {() => void} onclick
 */
export function button(icon, name, onclick) {
    return element("button", { type: "button", title: name, "aria-label": name, onclick },
        element("i", { className: `pi pi-${icon}`, "aria-hidden": "true" }));
}

/** Change icon and name of a button. */
export function relabel(made, icon, name) {
    made.title = name;
    made.setAttribute("aria-label", name);
    made.firstChild.className = `pi pi-${icon}`;
}

/** Show a button as pressed or not. */
export function setPressed(made, isPressed) {
    made.setAttribute("aria-pressed", String(isPressed));
}
