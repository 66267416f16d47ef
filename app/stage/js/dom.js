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

// The marks that Plotly draws for the scales, for chips and legends.
const SHAPES = {
  S1: () => svg('path', { d: 'M4 1.5h6L13 7l-3 5.5H4L1 7z' }),
  S2: () => svg('rect', { x: 2, y: 2, width: 10, height: 10 }),
  S3: () => svg('path', { d: 'M7 .5 13.5 7 7 13.5.5 7z' }),
  S4: () => svg('circle', { cx: 7, cy: 7, r: 5.5 }),
  S5: () => svg('path', { d: 'M7 1.5 13 12.5H1z' }),
};

export function mark(scale, colour) {
  const shape = (SHAPES[scale] ?? SHAPES.S4)();
  return svg('svg', { viewBox: '0 0 14 14', class: 'ld-shape', 'aria-hidden': 'true', style: `color:${colour}` }, shape);
}
