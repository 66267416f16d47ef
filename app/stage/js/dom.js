// Small helpers. Names of classes and files come from outside: they only ever enter the page as text.

export function part(root, name) {
  return root.querySelector(`[data-part="${name}"]`);
}

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'on') for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (key === 'style') for (const [name, text] of Object.entries(value)) node.style.setProperty(name, text);
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export function fill(text, values = {}) {
  return text.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

// Plotly.react, with the config given once. In a page with a base address Plotly takes the page's link into it, and into the
// references to its own colour bars and clips: each change of the link would make it draw everything anew, or lose them.
export async function react(Plotly, node, data, layout, config) {
  if (!node._context) {
    await Plotly.newPlot(node, [], { width: layout.width, height: layout.height }, config);
    node._context._baseUrl = '';
  }
  await Plotly.react(node, data, layout);
}

// A row of buttons of which one is on. Rebuilt only when its choices change, so that the keyboard's focus stays.
export function segments(box, choices, current, choose) {
  const key = JSON.stringify(choices);
  if (box.dataset.choices !== key) {
    box.dataset.choices = key;
    box.replaceChildren(
      ...choices.map(({ value, label }) => make('button', { type: 'button', 'data-value': value, on: { click: () => choose(value) } }, label)),
    );
  }
  for (const button of box.children) button.setAttribute('aria-pressed', String(button.dataset.value === current));
}

// A scale's mark as Plotly draws it, for chips and legends: {colour, path}.
export function mark({ colour, path }) {
  return svg('svg', { viewBox: '0 0 14 14', class: 'ld-shape', 'aria-hidden': 'true', style: `color:${colour}` }, svg('path', { d: path }));
}
