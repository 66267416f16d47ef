// The lesson: stops that open the real views in a chosen state. Nothing moves unless the reader asks for it.
import { make, part } from './dom.js';
import { clean, difference } from './link.js';

const MEMORY = 'lite-detr-stop';
const OF_THE_READER = ['lang', 'tour'];

export class Tour {
  // lesson: {language: [{link, title, text, try}, …]}.
  constructor(root, page, lesson) {
    Object.assign(this, { root, page, lesson, count: lesson.en.length });
    part(root, 'tour-button').addEventListener('click', () => (this.at ? this.leave() : this.enter(remembered() || 1)));
    part(root, 'tour-leave').addEventListener('click', () => this.leave());
    part(root, 'tour-previous').addEventListener('click', () => { if (this.at > 1) this.go(this.at - 1); });
    part(root, 'tour-next').addEventListener('click', () => (this.at < this.count ? this.go(this.at + 1) : this.leave()));
    part(root, 'tour-again').addEventListener('click', (event) => this.follow(event, this.at));
  }

  // The stop where the reader is, from 1; 0 outside the lesson.
  get at() {
    const stop = Number(this.page.state.tour ?? 0);
    return stop <= this.count ? stop : 0;
  }

  get stops() {
    return this.lesson[this.page.state.lang ?? 'en'] ?? this.lesson.en;
  }

  // The whole state of a stop: only the language stays.
  stateOf(stop) {
    const state = Object.fromEntries(new URLSearchParams(this.stops[stop - 1].link));
    return clean({ ...state, lang: this.page.state.lang, tour: String(stop) });
  }

  // A link that names a stop and nothing else means the stop's own state; any other is what the reader made of it.
  entered(state) {
    const alone = Object.keys(state).every((key) => OF_THE_READER.includes(key));
    return alone && this.at ? this.stateOf(this.at) : state;
  }

  go(stop) {
    const { page } = this;
    const state = this.stateOf(stop);
    const ready = page.info && page.root.dataset.busy === 'no' && page.state.example === state.example && !page.state.model;
    page.state = state;
    page.plot.zoomed = false;
    remember(stop);
    this.show();
    if (ready) page.look({});
    else page.analyse({ example: state.example }, true);
  }

  enter(stop) {
    this.go(Math.min(stop, this.count));
    part(this.root, 'tour-title').focus();
  }

  leave() {
    const { page } = this;
    part(this.root, 'tour-button').focus();
    if (page.next) page.next = clean({ ...page.next, tour: '' }); // a run under way does not bring the lesson back
    page.change({ tour: '' });
    this.show();
  }

  // A plain click opens the stop here; with a modifier the link is the browser's.
  follow(event, stop) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    this.enter(stop);
  }

  show() {
    const { root, page, at } = this;
    part(root, 'tour').hidden = !at;
    root.dataset.tour = at ? 'yes' : 'no';
    part(root, 'tour-button').setAttribute('aria-expanded', String(at > 0));
    if (!at) return;
    const stop = this.stops[at - 1];
    const put = (name, text) => { // unchanged text is not written again, so that it is not read out again
      const node = part(root, `tour-${name}`);
      if (node.textContent === text) return;
      node.textContent = text;
      if (name === 'text') page.glossary.mark(node);
    };
    put('place', page.say('tour.place', { stop: at, stops: this.count }));
    put('title', stop.title);
    put('text', stop.text);
    put('try', stop.try);
    put('next', page.say(at < this.count ? 'tour.next' : 'tour.end'));
    part(root, 'tour-previous').setAttribute('aria-disabled', String(at === 1));
    part(root, 'tour-again').href = page.link.of(this.stateOf(at)).href;
    part(root, 'tour-moved').hidden = Object.keys(difference(this.stateOf(at), clean(page.state))).length === 0;
    this.list(at);
    page.glossary.list(part(root, 'glossary'));
  }

  list(at) {
    const box = part(this.root, 'tour-stops');
    const key = `${this.page.state.lang} ${at}`;
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    const link = ({ title }, index) => make('a', {
      href: this.page.link.of(this.stateOf(index + 1)).href,
      'aria-current': index + 1 === at ? 'step' : null,
      on: { click: (event) => this.follow(event, index + 1) },
    }, title);
    box.replaceChildren(...this.stops.map((stop, index) => make('li', {}, link(stop, index))));
  }
}

// Where the reader was, for the next time; browsers may forbid it.
function remember(stop) {
  try { window.localStorage.setItem(MEMORY, String(stop)); } catch { /* then the lesson begins anew */ }
}

function remembered() {
  try { return Number(window.localStorage.getItem(MEMORY)) || 0; } catch { return 0; }
}
