// The step rail: the model itself, each step as wide as its multiply-adds, the present one lit.
import { make, part } from './dom.js';

const BEAT = 1100; // milliseconds per step while it plays
const PLAY = 'M8 5v14l11-7z';
const STOP = 'M7 6h4v12H7zM13 6h4v12h-4z';

export class Rail {
  constructor(root, page) {
    Object.assign(this, { box: part(root, 'rail'), page, stops: [], current: null, timer: null });
    this.box.addEventListener('keydown', (event) => this.key(event));
  }

  build(stops) {
    this.stops = stops;
    const { scales } = this.page;
    const whole = stops.reduce((sum, { gmacs }) => sum + gmacs, 0) || 1; // flex-grow of less than 1 in all would leave room empty
    const groups = [];
    for (const stop of stops) {
      const name = stop.kind === 'decoder' ? 'decoder' : stop.block == null ? stop.kind : `B${stop.block + 1}`;
      if (groups.at(-1)?.name !== name) groups.push({ name, stops: [] });
      groups.at(-1).stops.push(stop);
    }
    const all = stops.find((stop) => stop.kind === 'all')?.updates ?? [];
    const button = (stop) => {
      const bars = all.map((scale) => make('i', { class: stop.updates.includes(scale) ? 'on' : '', style: { '--c': scales[scale].colour } }));
      const node = make(
        'button',
        { type: 'button', class: 'ld-stop', 'data-stop': stop.name, 'data-kind': stop.kind, title: this.title(stop), 'aria-label': this.title(stop) },
        make('span', { class: 'ld-bars', 'aria-hidden': 'true' }, ...(['high', 'all'].includes(stop.kind) ? bars : [])),
        make('span', {}, this.label(stop)),
      );
      node.style.flexGrow = String((100 * stop.gmacs) / whole);
      node.addEventListener('click', () => { this.halt(); this.go(stop); });
      return node;
    };
    this.play = make('button', { type: 'button', class: 'ld-icon ld-play', on: { click: () => (this.timer ? this.halt() : this.start()) } });
    const boxes = groups.map((group) => {
      const single = group.stops.length === 1 && !/^B\d/.test(group.name);
      const label = make('span', { class: 'ld-group-name' }, single ? '' : group.name === 'decoder' ? this.page.say('spent.decoder') : group.name);
      const node = make('div', { class: 'ld-group', 'data-group': group.name }, label, make('div', { class: 'ld-group-stops' }, ...group.stops.map(button)));
      node.style.flexGrow = String((100 * group.stops.reduce((sum, { gmacs }) => sum + gmacs, 0)) / whole);
      return node;
    });
    this.box.replaceChildren(this.play, make('div', { class: 'ld-track' }, ...boxes));
    this.drawPlay();
    this.light(this.current);
  }

  label(stop) {
    if (stop.kind === 'backbone' || stop.kind === 'boxes') return this.page.say(`rail.${stop.kind}`);
    return stop.kind === 'decoder' ? stop.name.replace('decoder ', '') : this.page.stepName(stop.name.replace(/^B\d+ /, ''));
  }

  title(stop) {
    const values = { step: stop.name, scales: stop.updates.join(', '), queries: stop.queries.toLocaleString(), gmacs: stop.gmacs.toFixed(2) };
    const key = { backbone: 'rail.backbone.title', boxes: 'rail.boxes.title', decoder: 'rail.decoder' }[stop.kind] ?? 'rail.updates';
    return this.page.say(key, values);
  }

  light(name, working = false) {
    this.current = name;
    const place = this.stops.findIndex((stop) => stop.name === name);
    for (const node of this.box.querySelectorAll('.ld-stop')) {
      const index = this.stops.findIndex((stop) => stop.name === node.dataset.stop);
      node.classList.toggle('now', index === place);
      node.classList.toggle('done', working && index < place);
      if (index === place) {
        node.setAttribute('aria-current', 'step');
        const track = this.box.querySelector('.ld-track');
        track.scrollLeft += node.getBoundingClientRect().left - track.getBoundingClientRect().left - (track.clientWidth - node.offsetWidth) / 2;
      } else node.removeAttribute('aria-current');
    }
  }

  go(stop) {
    if (stop.kind === 'backbone') return;
    const { view, views, home } = this.page;
    if (stop.kind === 'boxes' && !view.boxes) this.page.change({ view: home });
    else this.page.change({ view: (view.rail ? view : views.find(({ rail }) => rail)).name, step: stop.name });
  }

  // Stops that are walked without leaving the view: the boxes are one of them where they are a step of it, or where no step is
  // looked at.
  get reachable() {
    const { view } = this.page;
    return this.stops.filter(({ kind }) => kind !== 'backbone' && (kind !== 'boxes' || view.boxes || !view.rail));
  }

  step(by) {
    const { reachable } = this;
    if (!reachable.length) return;
    const place = reachable.findIndex((stop) => stop.name === this.current);
    const next = Math.min(Math.max(place + by, 0), reachable.length - 1);
    if (next !== place) this.go(reachable[next]);
  }

  start() {
    const { reachable } = this;
    let place = reachable.findIndex((stop) => stop.name === this.current);
    if (place >= reachable.length - 1) place = -1;
    const next = () => {
      place += 1;
      if (place >= reachable.length) { this.halt(); return; }
      this.go(reachable[place]);
    };
    this.timer = setInterval(next, BEAT);
    this.drawPlay();
    next();
  }

  halt() {
    clearInterval(this.timer);
    this.timer = null;
    this.drawPlay();
  }

  drawPlay() {
    if (!this.play) return;
    const words = this.page.say(this.timer ? 'rail.stop' : 'rail.play');
    this.play.innerHTML = `<svg viewBox="0 0 24 24" class="ld-solid" aria-hidden="true"><path d="${this.timer ? STOP : PLAY}"/></svg>`;
    this.play.title = words;
    this.play.setAttribute('aria-label', words);
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !event.target.classList.contains('ld-stop')) return;
    event.preventDefault();
    const nodes = [...this.box.querySelectorAll('.ld-stop')];
    nodes[Math.min(Math.max(nodes.indexOf(event.target) + by, 0), nodes.length - 1)].focus();
  }
}
