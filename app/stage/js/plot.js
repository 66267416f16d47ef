// The photo with a figure over it: drawing, zoom, and where a click falls. Zoom and pan stay while figures change.

const CONFIG = { displayModeBar: false, scrollZoom: true, doubleClick: false, responsive: false, showTips: false };
const STILL = 6; // pixels a pointer may move and still be a click

export class Plot {
  constructor(node, Plotly, pick) {
    Object.assign(this, { node, Plotly, pick, figure: null, zoomed: false, size: null });
    this.touch = window.matchMedia('(pointer: coarse)').matches;
    this.watchPointer();
    new ResizeObserver(() => this.fitToRoom()).observe(node);
    node.addEventListener('wheel', () => this.setZoomed(true), { passive: true });
    node.addEventListener('dblclick', () => this.reset());
  }

  async draw(json, size, ink) {
    const figure = JSON.parse(json);
    const fresh = this.figure?.layout.uirevision !== figure.layout.uirevision;
    this.figure = figure;
    this.size = size;
    if (fresh) this.zoomed = false;
    await this.render(ink);
  }

  async render(ink) {
    if (!this.figure) return;
    if (ink) this.ink = ink;
    const { data, layout } = this.figure;
    const font = { ...layout.font, color: this.ink };
    // A finger scrolls the page until the photo is zoomed in; a mouse always pans.
    const dragmode = this.touch && !this.zoomed ? false : 'pan';
    const width = this.node.clientWidth;
    const height = this.node.clientHeight;
    // Plotly keeps what it is given and writes into it.
    const copy = structuredClone({ data, layout: { ...layout, font, dragmode, width, height } });
    if (this.zoomed) { // said here, because Plotly's own memory of a zoom holds for the mouse alone, not for buttons
      for (const axis of ['xaxis', 'yaxis']) copy.layout[axis].range = [...this.node._fullLayout[axis].range];
    }
    await this.Plotly.react(this.node, copy.data, copy.layout, CONFIG);
  }

  fitToRoom() {
    if (!this.figure || !this.node.clientWidth || !this.node.clientHeight) return;
    const size = { width: this.node.clientWidth, height: this.node.clientHeight };
    this.Plotly.relayout(this.node, this.zoomed ? size : { ...size, ...this.home() });
  }

  home() {
    const { xaxis, yaxis } = this.figure.layout;
    return { 'xaxis.range': [...xaxis.range], 'yaxis.range': [...yaxis.range] };
  }

  setZoomed(zoomed) {
    if (this.zoomed === zoomed) return;
    this.zoomed = zoomed;
    if (this.touch && this.figure) this.Plotly.relayout(this.node, { dragmode: zoomed ? 'pan' : false });
  }

  reset() {
    if (!this.figure) return;
    this.setZoomed(false);
    this.Plotly.relayout(this.node, this.home());
  }

  zoom(factor) {
    if (!this.figure) return;
    this.setZoomed(true);
    const around = ({ range }) => {
      const [middle, half] = [(range[0] + range[1]) / 2, ((range[1] - range[0]) / 2) * factor];
      return [middle - half, middle + half];
    };
    const { xaxis, yaxis } = this.node._fullLayout;
    this.Plotly.relayout(this.node, { 'xaxis.range': around(xaxis), 'yaxis.range': around(yaxis) });
  }

  // Sampling points of the present figure, in the photo's pixels.
  points() {
    const traces = (this.node.data ?? []).filter((trace) => /^S\d$/.test(trace.meta ?? ''));
    return traces.flatMap((trace) =>
      trace.x.map((x, index) => ({ scale: trace.meta, x, y: trace.y[index] })),
    );
  }

  // Points beyond what the whole photo with its gutter shows.
  pointsBeyond() {
    if (!this.node._fullLayout) return 0;
    const [[x0, x1], [y1, y0]] = [this.node._fullLayout.xaxis.range, this.node._fullLayout.yaxis.range];
    return this.zoomed ? 0 : this.points().filter((p) => p.x < x0 || p.x > x1 || p.y < y0 || p.y > y1).length;
  }

  showAllPoints() {
    const points = this.points();
    if (!points.length) return;
    const { width, height } = this.size;
    const [xs, ys] = [[0, width, ...points.map((p) => p.x)], [0, height, ...points.map((p) => p.y)]];
    const room = 0.05 * Math.max(width, height);
    this.setZoomed(true);
    this.Plotly.relayout(this.node, {
      'xaxis.range': [Math.min(...xs) - room, Math.max(...xs) + room],
      'yaxis.range': [Math.max(...ys) + room, Math.min(...ys) - room],
    });
  }

  // Page coordinates -> [x, y] in [0, 1] of the photo; may lie outside.
  locate(clientX, clientY) {
    const layer = this.node.querySelector('.nsewdrag');
    if (!layer || !this.size) return null;
    const box = layer.getBoundingClientRect();
    const { xaxis, yaxis } = this.node._fullLayout;
    return [xaxis.p2d(clientX - box.left) / this.size.width, yaxis.p2d(clientY - box.top) / this.size.height];
  }

  watchPointer() {
    // Plotly lays a cover over the page while the button is down: so the release is heard from the window.
    let start = null;
    this.node.addEventListener('pointerdown', (event) => { start = event.button === 0 ? event : null; }, true);
    window.addEventListener('pointercancel', () => { start = null; }, true);
    window.addEventListener('pointerup', (event) => {
      if (!start) return;
      const moved = Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY);
      start = null;
      if (moved > STILL) { this.setZoomed(true); return; }
      const place = this.locate(event.clientX, event.clientY);
      const near = (value) => value > -0.02 && value < 1.02;
      if (place && place.every(near)) this.pick(place);
    }, true);
  }
}
