// The stage's figure: one photo or several, or none. Drawing, zoom, and where a click falls. Zoom and pan stay while figures change.
import { settings } from './card.js';
import { react } from './dom.js';

const CONFIG = { displayModeBar: false, scrollZoom: true, doubleClick: false, responsive: false, showTips: false };
const LARGER = 1.5; // type on a full screen, for those in the last row
const GAP = 0.02; // between two photos, of the stage
const STILL = 6; // pixels a pointer may move and still be a click
const SOON = 60; // milliseconds in which Plotly says what mark a click hit

export class Plot {
  // pick: told [x, y] in [0, 1] of the photo; set: told the state parameters that a clicked mark carries; over: told the index of
  // the detection under the pointer, or null.
  constructor(node, overlay, Plotly, { pick, set, over }) {
    Object.assign(this, { node, overlay, Plotly, pick, set, over, figure: null, zoomed: false, boxing: false, size: null });
    this.touch = window.matchMedia('(pointer: coarse)').matches;
    this.watchPointer();
    new ResizeObserver(() => this.fitToRoom()).observe(node);
    node.addEventListener('wheel', (event) => this.wheel(event), { capture: true, passive: true });
    this.watchPinch();
    node.addEventListener('dblclick', () => this.reset());
  }

  async draw(json, size, ink) {
    const figure = JSON.parse(json);
    const fresh = this.figure?.layout.uirevision !== figure.layout.uirevision || this.kind !== kind(figure);
    this.kind = kind(figure);
    this.figure = figure;
    this.size = size;
    if (fresh) this.zoomed = false;
    const root = this.node.closest('.ld');
    root.dataset.photo = this.panels.length ? 'yes' : 'no';
    const { meta, height } = figure.layout;
    this.tall = meta?.tall ?? (this.panels.length ? size.height / size.width : (height ?? 420) / this.node.clientWidth);
    root.style.setProperty('--tall', String(this.tall + (this.panels.length ? 0.04 : 0))); // of the stage on a phone
    await this.render(ink);
  }

  // Axes of the photos: [{x: 'x', y: 'y'}, …]; one photo where the figure does not say.
  get panels() {
    return this.figure?.layout.meta?.panels ?? [{ x: 'x', y: 'y' }];
  }

  async render(ink) {
    if (!this.figure) return;
    if (ink) this.ink = ink;
    const { data, layout } = this.figure;
    const font = { ...layout.font, color: this.ink };
    const width = this.node.clientWidth;
    const height = this.panels.length ? this.node.clientHeight : Math.max(this.node.clientHeight, layout.height ?? 0);
    // Plotly keeps what it is given and writes into it.
    const copy = structuredClone({ data, layout: { ...layout, font, dragmode: this.dragmode, width, height } });
    if (this.large) enlarge(copy, LARGER);
    this.join(copy.layout);
    for (const [axis, domain] of this.domains(width, height)) copy.layout[axis].domain = domain;
    if (this.zoomed) { // said here, because Plotly's own memory of a zoom holds for the mouse alone, not for buttons
      for (const axis of this.axes) copy.layout[axis].range = [...this.node._fullLayout[axis].range];
    }
    await react(this.Plotly, this.node, copy.data, copy.layout, CONFIG);
    this.listen();
  }

  // Several photos zoom and pan as one; what is no photo stays still.
  join(layout) {
    if (!this.panels.length) {
      for (const [name, axis] of Object.entries(layout)) if (/^[xy]axis\d*$/.test(name)) axis.fixedrange = true;
      return;
    }
    const [first, ...others] = this.panels;
    for (const { x, y } of others) {
      Object.assign(layout[long(x)], { matches: first.x });
      Object.assign(layout[long(y)], { matches: first.y });
      delete layout[long(y)].scaleanchor;
      delete layout[long(x)].scaleanchor;
    }
  }

  // Several photos stand in as many columns as make them largest on this stage, close together in its middle; two fill it, so
  // that there is room around them to zoom into: [axis, its part of the stage] of each.
  domains(width, height) {
    const count = this.panels.length;
    if (count < 2) return [];
    const { layout } = this.figure;
    const { l, r, t, b } = layout.margin;
    const [across, down] = ['x', 'y'].map((name) => Math.abs(layout[long(this.panels[0][name])].range[1] - layout[long(this.panels[0][name])].range[0]));
    const room = { x: width - l - r, y: height - t - b };
    const grids = this.panels.map((_, index) => {
      const [columns, rows] = [index + 1, Math.ceil(count / (index + 1))];
      const size = { x: (1 - GAP * (columns - 1)) / columns, y: (1 - GAP * (rows - 1)) / rows };
      return { columns, rows, size, scale: Math.min((room.x * size.x) / across, (room.y * size.y) / down) };
    });
    const { columns, rows, size, scale } = grids.reduce((best, grid) => (grid.scale > best.scale ? grid : best));
    this.tall = ((room.x * size.x * down) / across / size.y + t + b) / width; // where the photos have the whole width
    if (count > 2) Object.assign(size, { x: (scale * across) / room.x, y: (scale * down) / room.y });
    const part = (name, place, places) => {
      const start = (1 - places * size[name] - (places - 1) * GAP) / 2 + place * (size[name] + GAP);
      return [Math.max(start, 0), Math.min(start + size[name], 1)];
    };
    return this.panels.flatMap(({ x, y }, index) => [
      [long(x), part('x', index % columns, columns)],
      [long(y), part('y', rows - 1 - Math.floor(index / columns), rows)], // y runs up
    ]);
  }

  get axes() {
    return this.panels.flatMap(({ x, y }) => [long(x), long(y)]);
  }

  // A finger scrolls the page until the photo is zoomed in; a mouse pans, or draws a box.
  get dragmode() {
    return this.boxing || !this.panels.length || (this.touch && !this.zoomed) ? false : 'pan';
  }

  setBoxing(on) {
    this.boxing = on;
    this.node.classList.toggle('boxing', on);
    this.frame(null);
    if (this.node._fullLayout) this.Plotly.relayout(this.node, { dragmode: this.dragmode });
  }

  listen() {
    if (this.listening) return;
    this.listening = true;
    this.node.on('plotly_click', (event) => {
      const set = settings(event);
      if (!set) return;
      clearTimeout(this.waiting);
      this.set(set);
    });
    this.node.on('plotly_hover', ({ points }) => this.over(points.find(({ data }) => Number.isInteger(data.meta))?.data.meta ?? null));
    this.node.on('plotly_unhover', () => this.over(null));
    this.node.on('plotly_relayout', () => { if (this.framed) this.frame(...this.framed); });
  }

  fitToRoom() {
    if (!this.figure || !this.node.clientWidth || !this.node.clientHeight) return;
    if (!this.panels.length) { this.render(); return; }
    const size = { width: this.node.clientWidth, height: this.node.clientHeight };
    const domains = Object.fromEntries(this.domains(size.width, size.height).map(([axis, domain]) => [`${axis}.domain`, domain]));
    this.Plotly.relayout(this.node, { ...size, ...domains, ...(this.zoomed ? {} : this.home()) });
  }

  home() {
    return Object.fromEntries(this.axes.map((axis) => [`${axis}.range`, [...this.figure.layout[axis].range]]));
  }

  setZoomed(zoomed) {
    if (this.zoomed === zoomed) return;
    this.zoomed = zoomed;
    if (this.touch && this.figure) this.Plotly.relayout(this.node, { dragmode: this.dragmode });
  }

  reset() {
    if (!this.figure || !this.panels.length) return;
    this.setZoomed(false);
    this.Plotly.relayout(this.node, this.home());
  }

  zoom(factor) {
    if (!this.figure || !this.panels.length) return;
    this.setZoomed(true);
    const around = ({ range }) => {
      const [middle, half] = [(range[0] + range[1]) / 2, ((range[1] - range[0]) / 2) * factor];
      return [middle - half, middle + half];
    };
    this.Plotly.relayout(this.node, Object.fromEntries(this.axes.map((axis) => [`${axis}.range`, around(this.node._fullLayout[axis])])));
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

  // A frame over the first photo around a box (xyxy in its pixels); null takes it away.
  frame(box, drawn = false) {
    this.framed = box ? [box, drawn] : null;
    this.overlay.hidden = !box || !this.panels.length;
    if (this.overlay.hidden) return;
    const layout = this.node._fullLayout;
    const [xaxis, yaxis] = [layout[long(this.panels[0].x)], layout[long(this.panels[0].y)]];
    const [left, right] = [xaxis.d2p(box[0]), xaxis.d2p(box[2])];
    const [top, bottom] = [yaxis.d2p(box[1]), yaxis.d2p(box[3])];
    const place = { left: xaxis._offset + left, top: yaxis._offset + top, width: right - left, height: bottom - top };
    for (const [name, value] of Object.entries(place)) this.overlay.style[name] = `${value}px`;
    this.overlay.classList.toggle('drawn', drawn);
  }

  // Page coordinates -> [x, y] in [0, 1] of the photo, from the photo that they are nearest to; may lie outside.
  locate(clientX, clientY) {
    const layout = this.node._fullLayout;
    if (!layout || !this.size || !this.panels.length) return null;
    const box = this.node.getBoundingClientRect();
    const [px, py] = [clientX - box.left, clientY - box.top];
    const beyond = (axis, at) => Math.max(axis._offset - at, at - axis._offset - axis._length, 0);
    const places = this.panels.map(({ x, y }) => ({ xaxis: layout[long(x)], yaxis: layout[long(y)] }));
    const far = ({ xaxis, yaxis }) => beyond(xaxis, px) + beyond(yaxis, py);
    const { xaxis, yaxis } = places.reduce((best, place) => (far(place) < far(best) ? place : best));
    return [xaxis.p2d(px - xaxis._offset) / this.size.width, yaxis.p2d(py - yaxis._offset) / this.size.height];
  }

  watchPointer() {
    // Plotly lays a cover over the page while the button is down: so the release is heard from the window.
    let start = null;
    const moved = (event) => Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > STILL;
    const from = () => this.locate(start.clientX, start.clientY);
    this.node.addEventListener('pointerdown', (event) => { start = event.button === 0 ? event : null; }, true);
    window.addEventListener('pointercancel', () => { start = null; }, true);
    window.addEventListener('pointermove', (event) => {
      if (!this.boxing) return;
      const place = this.locate(event.clientX, event.clientY);
      if (!place) return;
      if (start && moved(event)) this.box.dragged(from(), place, false);
      else if (!start) this.box.hovered(place);
    }, true);
    window.addEventListener('pointerup', (event) => {
      if (!start) return;
      const place = this.locate(event.clientX, event.clientY);
      const [far, begun] = [moved(event), from()];
      start = null;
      if (!place) return;
      if (far) {
        if (this.boxing) this.box.dragged(begun, place, true);
        else this.setZoomed(true);
        return;
      }
      const near = (value) => value > -0.02 && value < 1.02;
      if (!place.every(near)) return;
      if (this.boxing) this.box.clicked(place);
      else if (this.hasSettings()) this.waiting = setTimeout(() => this.pick(place), SOON); // a mark that was hit comes before the photo
      else this.pick(place);
    }, true);
  }

  // Where the page scrolls, the wheel scrolls it, and zooms with Ctrl.
  wheel(event) {
    const scrolls = document.documentElement.scrollHeight > window.innerHeight + 4;
    if (scrolls && !event.ctrlKey && !event.metaKey) event.stopPropagation();
    else if (this.panels.length) this.setZoomed(true);
  }

  // Two fingers zoom about the middle between them.
  watchPinch() {
    let begun = null;
    const apart = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    this.node.addEventListener('touchstart', ({ touches }) => {
      if (touches.length !== 2 || !this.panels.length) return;
      const layout = this.node._fullLayout;
      begun = { apart: apart(touches), ranges: this.axes.map((axis) => [axis, [...layout[axis].range]]) };
    }, { capture: true, passive: true });
    this.node.addEventListener('touchmove', (event) => {
      if (!begun || event.touches.length !== 2) return;
      event.stopPropagation();
      const factor = Math.min(Math.max(begun.apart / apart(event.touches), 0.05), 4);
      const about = ([low, high]) => [(low + high) / 2 - ((high - low) / 2) * factor, (low + high) / 2 + ((high - low) / 2) * factor];
      const ranges = Object.fromEntries(begun.ranges.map(([axis, range]) => [`${axis}.range`, about(range)]));
      cancelAnimationFrame(this.pinching);
      this.pinching = requestAnimationFrame(() => { this.setZoomed(true); this.Plotly.relayout(this.node, ranges); });
    }, { capture: true, passive: true });
    this.node.addEventListener('touchend', ({ touches }) => { if (touches.length < 2) begun = null; }, { capture: true, passive: true });
  }

  hasSettings() {
    return this.figure.data.some(({ meta, customdata }) => meta?.set || (Array.isArray(customdata) && customdata.some((each) => each?.set)));
  }
}

function long(axis) {
  return `${axis[0]}axis${axis.slice(1)}`;
}

// Every font of a figure larger.
function enlarge(node, factor) {
  for (const [key, value] of Object.entries(node)) {
    if (!value || typeof value !== 'object' || ArrayBuffer.isView(value)) continue;
    if (key.endsWith('font') && value.size) value.size *= factor;
    else enlarge(value, factor);
  }
}

// Figures of one kind keep the visitor's zoom.
function kind({ layout }) {
  return JSON.stringify(layout.meta?.panels ?? null);
}
