// A box drawn on the photo: by a drag, by two clicks or taps, or by keys (arrows move it, with Shift they change its size).
import { part } from './dom.js';

const KEY_STEP = 0.02;

export class Box {
  constructor(root, page, plot) {
    Object.assign(this, { page, plot, button: part(root, 'box-mode'), corner: null, view: null });
    this.button.addEventListener('click', () => this.turn(!plot.boxing));
    plot.box = this;
  }

  // The mode is on when a view that asks for a box opens, and may be left to pan.
  show(view) {
    this.button.hidden = !view.box;
    if (view.box && this.view !== view) this.turn(true);
    if (!view.box && this.plot.boxing) this.turn(false);
    this.view = view;
  }

  turn(on) {
    this.corner = null;
    this.plot.setBoxing(on);
    this.button.setAttribute('aria-pressed', String(on));
  }

  // Corners in [0, 1] of the photo, in any order.
  set([x1, y1], [x2, y2]) {
    const within = (value) => Math.min(Math.max(value, 0), 1);
    const [left, right] = [within(Math.min(x1, x2)), within(Math.max(x1, x2))];
    const [top, bottom] = [within(Math.min(y1, y2)), within(Math.max(y1, y2))];
    this.corner = null;
    this.plot.frame(null);
    this.page.change({ box: [left, top, right, bottom].map((value) => value.toFixed(4)).join() });
  }

  preview(from, to) {
    const { width, height } = this.plot.size;
    this.plot.frame([from[0] * width, from[1] * height, to[0] * width, to[1] * height], true);
  }

  dragged(from, to, done) {
    if (done) this.set(from, to);
    else this.preview(from, to);
  }

  clicked(place) {
    if (this.corner) { this.set(this.corner, place); return; }
    this.corner = place;
    this.preview(place, place);
  }

  hovered(place) {
    if (this.corner) this.preview(this.corner, place);
  }

  // Arrow keys: gives whether it took the key.
  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const by = moves[event.key];
    if (!this.plot.boxing || (!by && event.key !== 'Enter')) return false;
    const given = (this.page.state.box ?? '').split(',').map(Number);
    const [x1, y1, x2, y2] = given.length === 4 ? given : [0.4, 0.4, 0.6, 0.6];
    const [dx, dy] = given.length === 4 && by ? by.map((step) => step * KEY_STEP) : [0, 0];
    if (event.shiftKey) this.set([x1, y1], [Math.max(x2 + dx, x1 + 0.01), Math.max(y2 + dy, y1 + 0.01)]);
    else {
      const [mx, my] = [Math.min(Math.max(dx, -x1), 1 - x2), Math.min(Math.max(dy, -y1), 1 - y2)];
      this.set([x1 + mx, y1 + my], [x2 + mx, y2 + my]);
    }
    return true;
  }
}

