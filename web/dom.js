/** Elements from tags, properties and children. Text is only ever text. */

/** Gives an element its children; what is not there is left out. */
export function fill(element, ...children) {
	element.replaceChildren(...children.flat().filter(Boolean));
	return element;
}

/** An element, named as `tag.class`: `on…` are listeners; what is no property of it is an attribute. */
export function h(name, ...children) {
	const [tag, ...classes] = name.split(".");
	const properties = children[0]?.constructor === Object ? children.shift() : {};
	const element = document.createElement(tag);
	element.classList.add(...classes);
	for (const [key, value] of Object.entries(properties)) {
		if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
		else if (key in element) element[key] = value;
		else element.setAttribute(key, value);
	}
	return fill(element, ...children);
}

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
	pending: "M8 2a6 6 0 1 0 .01 0M8 5v3.2l2 1.3",
	stored: "M4 8.5l3 3 6-7",
	received: "M1 8.5l3 3 6-7M7 10.6l1 .9 6-7",
	failed: "M8 2a6 6 0 1 0 .01 0M8 4.8v4M8 10.8v.4",
	back: "M10 3l-5 5 5 5",
	down: "M3 6l5 5 5-5",
	send: "M2 8l12-6-4 12-2.5-4.5z",
};
SHAPES.read = SHAPES.received;

/** A drawn sign; `label` says it to those who do not see it. */
export function sign(name, label) {
	const svg = document.createElementNS(SVG, "svg");
	const path = svg.appendChild(document.createElementNS(SVG, "path"));
	svg.setAttribute("viewBox", "0 0 16 16");
	path.setAttribute("d", SHAPES[name]);
	svg.classList.add("sign", name);
	return Object.assign(svg, label ? { role: "img", ariaLabel: label } : { ariaHidden: "true" });
}

/** A disc with the first character of a name, in the colour of its id. */
export function portrait({ id, name }, online) {
	const dot = online && h("span.dot");
	const disc = h("span.portrait", { ariaHidden: "true" }, [...name][0].toUpperCase(), dot);
	disc.style.setProperty("--hue", (id.slice(-9) * 67) % 360);
	return disc;
}
