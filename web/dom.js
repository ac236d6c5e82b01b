/** Elements from tags, properties and children. Text is only ever text. */

/** @typedef {Node | string | number | boolean | null | undefined} Child */

/**
 * Properties, attributes and listeners of an element.
 *
 * @typedef {{
 *   [Type in keyof GlobalEventHandlersEventMap as `on${Type}`]?: (event: GlobalEventHandlersEventMap[Type]) => unknown
 * } & Record<string, unknown>} Properties
 */

/**
 * The element of a name such as `button.strong`.
 *
 * @template {string} Name
 * @typedef {Name extends `${infer Tag}.${string}` ? ElementOf<Tag>
 *   : Name extends keyof HTMLElementTagNameMap ? HTMLElementTagNameMap[Name]
 *   : never} ElementOf
 */

/**
 * Gives an element its children; what is not there is left out.
 *
 * @template {Element} E
 * @param {E} element
 * @param {(Child | Child[])[]} children
 */
export function fill(element, ...children) {
	element.replaceChildren(.../** @type {(Node | string)[]} */ (children.flat().filter(Boolean)));
	return element;
}

/**
 * An element, named as `tag.class`: `on…` are listeners; what is no property of it is an attribute.
 *
 * @template {string} Name
 * @param {Name} name
 * @param {[first?: Properties | Child | Child[], ...rest: (Child | Child[])[]]} content
 */
export function h(name, ...content) {
	const [tag = "", ...classes] = name.split(".");
	const properties = content[0]?.constructor === Object ? /** @type {Properties} */ (content.shift()) : {};
	const children = /** @type {(Child | Child[])[]} */ (content);
	const element = /** @type {ElementOf<Name> & HTMLElement} */ (document.createElement(tag));
	element.classList.add(...classes);
	for (const [key, value] of Object.entries(properties)) {
		if (key.startsWith("on")) element.addEventListener(key.slice(2), /** @type {EventListener} */ (value));
		else if (key in element) Object.assign(element, { [key]: value });
		else element.setAttribute(key, String(value));
	}
	return fill(element, ...children);
}

const SVG = "http://www.w3.org/2000/svg";
const TICKS = "M1 8.5l3 3 6-7M7 10.6l1 .9 6-7";
const SHAPES = {
	pending: "M8 2a6 6 0 1 0 .01 0M8 5v3.2l2 1.3",
	stored: "M4 8.5l3 3 6-7",
	received: TICKS,
	read: TICKS,
	failed: "M8 2a6 6 0 1 0 .01 0M8 4.8v4M8 10.8v.4",
	back: "M10 3l-5 5 5 5",
	down: "M3 6l5 5 5-5",
	send: "M2 8l12-6-4 12-2.5-4.5z",
};

/**
 * A drawn sign; `label` says it to those who do not see it.
 *
 * @param {keyof typeof SHAPES} name
 * @param {string} [label]
 */
export function sign(name, label) {
	const svg = document.createElementNS(SVG, "svg");
	const path = svg.appendChild(document.createElementNS(SVG, "path"));
	svg.setAttribute("viewBox", "0 0 16 16");
	path.setAttribute("d", SHAPES[name]);
	svg.classList.add("sign", name);
	return Object.assign(svg, label ? { role: "img", ariaLabel: label } : { ariaHidden: "true" });
}

/**
 * A disc with the first character of a name, in the colour of its id.
 *
 * @param {{ id: string, name: string }} person
 * @param {boolean} [online]
 */
export function portrait({ id, name }, online) {
	const dot = online && h("span.dot");
	const disc = h("span.portrait", { ariaHidden: "true" }, ([...name][0] ?? "").toUpperCase(), dot);
	disc.style.setProperty("--hue", String((Number(id.slice(-9)) * 67) % 360));
	return disc;
}
