// Making elements. Text goes in as text nodes alone, so markup in a prompt is shown, never parsed.

/**
 * Make an element. Attributes whose name starts with "on" are listeners; null, undefined and false
 * leave an attribute out, true leaves it empty. Children are nodes or strings; null is skipped.
 */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** The element of that id; the page cannot work without it, so its absence is an error. */
export function byId(id) {
  const node = document.getElementById(id);
  if (node === null) throw new Error(`the page has no element #${id}`);
  return node;
}

/** Write text only if it differs: a live region speaks whenever its text is written. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
