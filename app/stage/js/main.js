// The page: one run, one state. Every change asks the server for the figure of the new state; late answers are dropped.
import { Box } from './box.js';
import { Card } from './card.js';
import { fill, part } from './dom.js';
import { Glossary } from './glossary.js';
import { Inspector } from './inspector.js';
import { intake } from './intake.js';
import { keep, kept } from './keep.js';
import { Link, clean, difference } from './link.js';
import { models } from './models.js';
import { Network } from './network.js';
import { Own } from './own.js';
import { Plot } from './plot.js';
import { Rail } from './rail.js';
import { Remake } from './remake.js';
import { Tabs } from './tabs.js';
import { TakeAway } from './takeaway.js';
import { Tour } from './tour.js';
import { Work } from './work.js';

const NOTHING_CHOSEN = { view: '', q: '', at: '', box: '', mute: '' };
const THEME = 'lite-detr-theme'; // of localStorage
const DOUBT = 6_000; // milliseconds without an event of a run, after which the page looks whether the server is there
const PATIENCE = 90_000; // and after which it asks once more, and at last says so

export async function mount(element, gradio) {
  const page = new Page(element.querySelector('.ld'), gradio, await plotly(gradio.props.page.plotly));
  window.liteDetr = page;
  page.begin();
}

// Held from here on: Gradio's own charts put another plotly.js in window.Plotly.
async function plotly(address) {
  await new Promise((done) => {
    const script = document.createElement('script');
    Object.assign(script, { src: address, onload: done, onerror: done });
    document.head.append(script);
  });
  return window.Plotly;
}

class Page {
  constructor(root, { analyse, work, props, server, upload }, Plotly) {
    const { source, examples, views, models, hub, glossary, lesson, texts, classes, scales, link } = JSON.parse(JSON.stringify(props.page));
    Object.assign(this, { root, server, upload, source, examples, views, models, hub, texts, classes, scales, Plotly, trigger: analyse });
    this.network = new Network(server, (gone) => this.away(gone));
    this.link = new Link(link);
    [this.view] = views; // the one that is shown
    Object.assign(this, { info: null, state: this.link.read(), ticket: 0, seq: 0, shown: 0, pending: null, asking: false, request: null, jobs: new Map() });
    this.times = []; // of the last look-ups, in milliseconds
    this.visitor = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    this.plot = new Plot(part(root, 'plot'), part(root, 'frame'), Plotly, {
      pick: (place) => this.look({ pick: place }),
      set: (changes) => this.change(changes),
      over: (index) => this.inspector.light(index),
    });
    this.glossary = new Glossary(root, this, glossary);
    this.rail = new Rail(root, this);
    this.inspector = new Inspector(root, this);
    this.card = new Card(root, this, Plotly);
    this.tabs = new Tabs(root, this);
    this.box = new Box(root, this, this.plot);
    this.takeAway = new TakeAway(root, this, Plotly);
    this.work = new Work(root, this, work);
    this.remake = new Remake(root, this);
    this.tour = new Tour(root, this, lesson);
    this.wire();
  }

  begin() {
    embed(this.root);
    this.state = this.tour.entered(this.state);
    intake(this.root, this);
    this.own = new Own(this.root, this);
    models(this.root, this);
    this.translate();
    if (!this.Plotly) { this.fail(this.say('error.plotly')); return; }
    this.link.follow((entry) => this.revisit(entry));
    this.resume();
  }

  // What was looked at before a reload, else the first example or the link's.
  async resume() {
    const left = await kept();
    const { example, tour } = this.state;
    const again = left?.computing ? () => this.work.resume() : null;
    if (left && !left.job.example && !example && !tour) await this.restore(left, again);
    else this.analyse({ example: this.example(this.state) }, true, left?.job.example === example ? again : null);
  }

  // Of a state, or the first where it names none that is here.
  example({ example }) {
    return this.examples.includes(example) ? example : this.examples[0];
  }

  // What was looked at before: the browser's Back and Forward.
  revisit({ state, run }) {
    this.rail.halt();
    const there = this.info?.run === run || (state.example && state.example === this.info?.example);
    if (there && this.info.source === (state.model ?? '') && this.root.dataset.busy === 'no') {
      this.state = { ...state, lang: this.state.lang };
      this.look({});
    } else if (state.example) {
      this.state = { ...state, lang: this.state.lang };
      this.analyse({ example: this.example(state) }, true);
    } else this.reopen(run, state, this.jobs.get(run));
  }

  // For the time after a reload; run: '' while it is on its way.
  keep(run) {
    keep({ run, state: run ? this.state : this.next, job: run ? this.opened : this.last, computing: this.work.ticket !== null });
  }

  get words() {
    return this.texts[this.state.lang ?? 'en'] ?? this.texts.en;
  }

  // A text with its places filled; a `step` and a class's `name` are called as the language calls them.
  say(key, values = {}) {
    const { step, name } = values;
    return fill(this.words[key] ?? key, { ...values, ...(step && { step: this.stepName(step) }), ...(name && { name: this.className(name) }) });
  }

  className(name) {
    return this.classes[this.state.lang]?.[name] ?? name;
  }

  // "B1 high", "decoder 3", "backbone"; the name itself where it is no step's.
  stepName(name) {
    const [whole, block = '', kind, number = ''] = /^(B\d+ )?([a-z]+)( \d+)?$/.exec(name) ?? [];
    return whole && `step.${kind}` in this.words ? block + this.words[`step.${kind}`] + number : name;
  }

  // The view of a link that names none.
  get home() {
    return this.views[0].name;
  }

  get ink() {
    return getComputedStyle(this.root).getPropertyValue('--ink').trim();
  }

  // ---- a run ----

  // job: {file, photo} or {example}; keep: the state came from a link and holds for the run to come; then: what follows it.
  analyse(job, keep = false, then = null) {
    this.begun(job);
    this.then = then;
    const example = job.example ?? '';
    this.request = [job.file ?? null, { ticket: this.ticket, visitor: this.visitor, example, lang: this.state.lang ?? 'en', model: this.state.model ?? '' }];
    const next = { ...this.state, example };
    this.next = keep ? next : { ...next, ...NOTHING_CHOSEN };
    this.rail.halt();
    this.tries = 0;
    this.keep('');
    this.start();
  }

  // Gradio loads the page anew where one of its events meets a dead server: none is sent to one, and the link holds what was asked.
  async start() {
    const { running, network } = this;
    this.link.write(this.next);
    this.busy(this.say('status.waiting'));
    if (!(await network.alive())) await network.back();
    if (running !== this.running) return;
    this.serverAtStart = network.started;
    this.wait();
    this.trigger();
  }

  // The job under way once more, as a new one: its events were lost, or its server is another one by now.
  again() {
    if (this.last.photo && this.network.started !== this.serverAtStart) { // what was sent is gone with the server
      this.state = clean(this.next);
      this.remake.start(this.last, this.then);
      return;
    }
    this.cancel(this.ticket);
    this.running = this.nextTicket();
    const [file, request] = this.request;
    this.request = [file, { ...request, ticket: this.ticket }];
    this.start();
  }

  // A finished run again, in the state in which it was left; job: what made it; then: what follows it.
  async reopen(run, state, job, then = null) {
    this.begun(job);
    clearTimeout(this.patience);
    this.rail.halt();
    this.then = then;
    this.next = clean(state);
    await this.open(run);
  }

  // After a reload: the run of the visitor's own photo, which is made again where it is gone or was on its way; without the photo
  // a sentence and the first example.
  async restore({ run, state, job }, then) {
    const { error } = run ? await this.ask('open_run', { run, state: { lang: this.state.lang } }) : { error: this.say('error.expired') };
    if (!error) { await this.reopen(run, { ...state, ...this.state }, job, then); return; }
    if (job.photo) {
      this.state = clean({ ...state, ...this.state });
      await this.remake.start(job, then);
      return;
    }
    this.analyse({ example: this.examples[0] }, true);
    this.refused = error;
  }

  // Whatever went on before is over.
  begun(job) {
    this.cancel(this.ticket);
    this.work.stop();
    this.nextTicket();
    this.running = this.ticket;
    this.last = job;
    this.then = null;
    this.refused = '';
  }

  // Another model looks at the same photo; '' is the page's own.
  choose(model) {
    this.state = clean({ ...this.state, model });
    this.analyse(this.last);
  }

  nextTicket() {
    this.ticket += 1;
    return this.ticket;
  }

  // Nobody waits any more for the jobs up to this one: the model is free for the next.
  cancel(ticket) {
    if (ticket > 0) this.network.once('cancel', { visitor: this.visitor, ticket });
  }

  wait() {
    this.heard = Date.now();
    this.watch();
  }

  watch() {
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.doubt(), DOUBT);
  }

  // Nothing was heard for a while: the server may compute, or be gone, or be another one that knows nothing of the job.
  async doubt() {
    const { running, network } = this;
    const there = await network.alive();
    if (!there) await network.back();
    if (running !== this.running || this.root.dataset.busy === 'no') return;
    const late = Date.now() - this.heard > PATIENCE;
    if (there && network.started === this.serverAtStart && !late) this.watch();
    else if (late && this.tries++) this.fail(this.say('error.server'));
    else this.again();
  }

  // One sentence while the server is away.
  away(gone) {
    const box = part(this.root, 'error');
    const words = part(this.root, 'error-text');
    if (gone) Object.assign(words, { textContent: this.say('error.away') });
    if (gone || words.textContent === this.say('error.away')) box.hidden = !gone;
  }

  runRequest() {
    return this.request;
  }

  async onEvent(event) {
    if (event.ticket !== this.running || event.cancelled) return;
    clearTimeout(this.patience);
    if (event.refused) { // the model cannot be had, and the page's own goes on in its place
      this.refused = `${event.refused} ${this.say('models.back')}`;
      this.next = clean({ ...this.next, model: '' });
      this.state = clean({ ...this.state, model: '' });
    }
    if (event.expired) { // the photo that was sent before is no longer there
      this.state = clean(this.next);
      this.remake.ticket = null;
      await this.remake.start(this.last, this.then);
    } else if (event.error) this.fail(event.error);
    else if (event.download) this.downloading(...event.download);
    else if (event.waiting) {
      this.wait();
      this.busy(this.say('status.before', { count: event.waiting }));
    } else if (event.stage) {
      this.wait();
      this.busy(this.say(event.stage === 'backbone' ? 'status.backbone' : 'status.step', { step: event.stage }));
      this.rail.light(event.stage, true);
    } else if (event.run) await this.open(event.run);
  }

  downloading(done, all) {
    this.wait();
    if (all && done >= all) { this.busy(this.say('status.converting', { model: this.state.model })); return; }
    const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
    this.busy(this.say('status.download', { model: this.state.model, done: megabytes(done), all: megabytes(all) }));
    const bar = part(this.root, 'progress');
    bar.hidden = false;
    bar.value = all ? done / all : 0;
  }

  async open(run) {
    this.busy(this.say('status.drawing'));
    const { running: ticket, then } = this;
    const info = await this.ask('open_run', { run, state: { lang: this.state.lang } });
    if (ticket !== this.running) return;
    if (info.expired) {
      this.state = clean(this.next);
      await this.remake.start(this.last, then);
      return;
    }
    if (info.error) { this.fail(info.error); return; }
    Object.assign(this, { info, state: clean(this.next), opened: this.last });
    this.jobs.set(info.run, this.last);
    this.rail.build(info.stops);
    this.nameModel();
    this.inspector.spent(info);
    for (const node of this.root.querySelectorAll('.ld-example')) node.setAttribute('aria-pressed', String(node.dataset.example === this.state.example));
    await this.look({});
    this.busy(null);
    const notes = [this.refused, info.note].filter(Boolean).join(' ');
    if (notes) this.fail(notes);
    this.then = null;
    await then?.();
    this.strip.opened(info, this.opened);
  }

  // The button says which model is shown, also to who hears it.
  nameModel() {
    if (!this.info) return;
    const { source, model } = this.info;
    part(this.root, 'model').textContent = source || model;
    const button = part(this.root, 'model-button');
    button.title = `${this.say('models')}: ${model}`;
    button.setAttribute('aria-label', `${this.say('models')}: ${source || model}`);
  }

  busy(text) {
    this.root.dataset.busy = text == null ? 'no' : 'yes';
    part(this.root, 'veil').hidden = text == null;
    part(this.root, 'progress').hidden = true;
    part(this.root, 'status').textContent = text ?? '';
    if (text != null) part(this.root, 'error').hidden = true;
  }

  fail(sentence) {
    this.busy(null);
    this.rail.light(this.current);
    part(this.root, 'error-text').textContent = sentence;
    part(this.root, 'error').hidden = false;
  }

  // ---- look-ups ----

  // Change the state: {q, at, view, step, …} as in a link.
  change(changes) {
    this.state = clean({ ...this.state, ...changes });
    return this.look({});
  }

  // One question at a time: while one is under way the newest waits, and steps by arrow keys add up.
  async look(extra) {
    if (!this.info) return;
    if (this.asking) {
      const move = extra.move && this.pending?.move ? extra.move.map((step, axis) => step + this.pending.move[axis]) : extra.move;
      this.pending = { ...(extra.pick ? {} : this.pending), ...extra, ...(move && { move }) };
      return;
    }
    this.asking = true;
    this.seq += 1;
    const begun = performance.now();
    const { state, info, seq } = this;
    const answer = await this.ask('look', { run: info.run, state, seq, ...extra });
    try {
      if (info !== this.info) { /* another run came in between */ }
      else if (answer.expired) await this.remake.start(this.opened, extra.pick || extra.move ? () => this.look(extra) : null);
      else if (answer.error) this.fail(answer.error);
      else await this.show(answer, state, Boolean(extra.move));
    } finally {
      this.asking = false;
    }
    this.times = [...this.times.slice(-99), performance.now() - begun];
    this.shown = seq;
    const waiting = this.pending;
    this.pending = null;
    if (waiting) await this.look(waiting);
  }

  async ask(name, request) {
    return (await this.network.ask(name, request)) ?? { error: this.say('error.server') };
  }

  async show(answer, asked, move) {
    // What was changed while the answer was under way holds, and is asked for next.
    this.state = this.state === asked ? answer.state : { ...answer.state, ...difference(asked, this.state) };
    this.remake.tries = 0;
    const { summary, view } = answer;
    this.view = this.views.find(({ name }) => name === view);
    Object.assign(this.root.dataset, { view, home: view === this.home ? 'yes' : 'no' });
    this.summary = summary;
    this.tabs.show(view, answer.needs);
    this.box.show(this.view);
    await this.plot.draw(answer.figure, this.info, this.ink);
    this.current = summary.step ?? this.state.step;
    this.rail.light(this.current);
    this.inspector.show(this.view.cards, summary, this.state);
    this.work.show(answer.job);
    this.furnish();
    this.link.write(this.state, this.info.run, move);
    if (this.root.dataset.busy === 'no' || this.opened === this.last) this.keep(this.info.run);
    await painted(); // the figure first; what stands beside it when it is in sight, and not while a slider is dragged on
    if (!this.pending) await this.card.show(answer, this.state);
    this.work.begin();
  }

  // Everything around the figure that follows from the state.
  furnish() {
    const threshold = this.threshold();
    this.inspector.table(this.info, threshold, this.state);
    const slider = part(this.root, 'threshold');
    if (document.activeElement !== slider) slider.value = String(threshold);
    part(this.root, 'threshold-value').textContent = threshold.toFixed(2);
    const { line, caption } = this.summary;
    part(this.root, 'line').textContent = line?.[this.plot.touch ? 'touch' : 'mouse'] ?? caption ?? '';
    this.tour.show();
    this.own.show();
    part(this.root, 'all-points').hidden = !(this.plot.figure.layout.meta?.beyond && this.plot.pointsBeyond() > 0);
  }

  threshold() {
    return this.state.t === undefined ? this.info.threshold : Number(this.state.t);
  }

  // ---- events ----

  wire() {
    const { root } = this;
    const slider = part(root, 'threshold');
    slider.addEventListener('input', () => {
      part(root, 'threshold-value').textContent = Number(slider.value).toFixed(2);
      this.change({ t: slider.value });
    });
    const zooms = { in: () => this.plot.zoom(0.7), out: () => this.plot.zoom(1 / 0.7), reset: () => this.plot.reset(), points: () => this.plot.showAllPoints() };
    for (const button of root.querySelectorAll('[data-zoom]')) button.addEventListener('click', zooms[button.dataset.zoom]);
    part(root, 'present').addEventListener('click', () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()));
    document.addEventListener('fullscreenchange', () => this.present(document.fullscreenElement === root));
    part(root, 'skip').addEventListener('click', (event) => {
      event.preventDefault();
      part(root, 'plot').focus();
    });
    for (const dialog of root.querySelectorAll('dialog')) dialog.addEventListener('click', ({ target }) => { if (target === dialog) dialog.close(); });
    part(root, 'error-close').addEventListener('click', () => { part(root, 'error').hidden = true; });
    theme(part(root, 'theme'));
    part(root, 'source').href = this.source;
    for (const button of root.querySelectorAll('[data-lang]')) button.addEventListener('click', () => this.speak(button.dataset.lang));
    part(root, 'plot').addEventListener('keydown', (event) => this.key(event));
    new MutationObserver(() => this.recolour()).observe(document.body, { attributes: true, attributeFilter: ['class'] });
  }

  // The whole screen for stage and rail, in larger type.
  present(on) {
    this.root.dataset.present = on ? 'yes' : 'no';
    this.plot.large = on;
    this.plot.render(this.ink);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.box.key(event)) { event.preventDefault(); return; }
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const acts = {
      '[': () => this.rail.step(-1),
      ']': () => this.rail.step(1),
      '+': () => this.plot.zoom(0.7),
      '-': () => this.plot.zoom(1 / 0.7),
      0: () => this.plot.reset(),
      Escape: () => this.change({ view: this.home }),
      Enter: () => { if (this.view.leads) this.change({ view: this.view.leads }); },
    };
    const act = moves[event.key] ? () => this.look({ move: moves[event.key] }) : acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  async recolour() {
    if (!this.info) return;
    await this.plot.render(this.ink);
    await this.card.draw();
  }

  async speak(lang) {
    this.state = clean({ ...this.state, lang });
    this.translate();
    if (!this.info) return;
    this.rail.build(this.rail.stops);
    this.inspector.spent(this.info);
    for (const name of ['heads', 'query-scale']) delete part(this.root, name).dataset.choices;
    await this.look({});
  }

  translate() {
    const lang = this.state.lang ?? 'en';
    this.root.lang = lang;
    document.documentElement.lang = lang;
    for (const node of this.root.querySelectorAll('[data-text]')) node.textContent = this.say(node.dataset.text);
    for (const node of this.root.querySelectorAll('[data-label]')) {
      node.setAttribute('aria-label', this.say(node.dataset.label));
      if (node.tagName === 'BUTTON') node.title = this.say(node.dataset.label);
    }
    for (const node of this.root.querySelectorAll('[data-hint]')) node.title = this.say(node.dataset.hint);
    for (const button of this.root.querySelectorAll('[data-lang]')) button.setAttribute('aria-pressed', String(button.dataset.lang === lang));
    if (!this.info) part(this.root, 'line').textContent = this.say(this.plot.touch ? 'hint.touch' : 'hint.detections');
    this.nameModel();
    this.tour.show();
  }
}

// Light or dark as the visitor left it, unless the address says which.
function theme(button) {
  const { classList } = document.body;
  const said = new URLSearchParams(window.location.search).has('__theme');
  try {
    const left = window.localStorage.getItem(THEME);
    if (left && !said) classList.toggle('dark', left === 'dark');
  } catch { /* as the browser prefers */ }
  button.addEventListener('click', () => {
    classList.toggle('dark');
    try { window.localStorage.setItem(THEME, classList.contains('dark') ? 'dark' : 'light'); } catch { /* for this page alone */ }
  });
}

// Inside another page (?embed=1): stage, rail and what belongs to the view, as tall as they are; the page around is told how tall.
function embed(root) {
  if (new URLSearchParams(window.location.search).get('embed') !== '1') return;
  root.dataset.embed = 'yes';
  new ResizeObserver(() => window.parent.postMessage({ type: 'lite-detr', height: root.offsetHeight }, '*')).observe(root);
}

// After the next frame; a page in the background has none.
function painted() {
  return Promise.race([new Promise((done) => requestAnimationFrame(() => setTimeout(done))), new Promise((done) => setTimeout(done, 60))]);
}
