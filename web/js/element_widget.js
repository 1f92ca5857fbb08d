let count = 0;

/**
 * Add an element to a node as a widget that is neither in the workflow nor in what Run sends.
 * @param {import("../../../scripts/app.js").LGraphNode} node
 * @param {string} name of the widget; no input may have it
 * @param {HTMLElement} element
 * @param {object} options of addDOMWidget
 * @returns {object} the widget
 */
export function addElement(node, name, element, options) {
    // Nodes 2.0 keeps the element of a node's widget of the same name and type, also when undo has made the node anew.
    const type = `wan22-element-${count++}`;
    const widget = node.addDOMWidget(name, type, element, { serialize: false, ...options });
    widget.serialize = false;
    return widget;
}
