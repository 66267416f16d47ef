// What stands beside the stage: the cards that views ask for (one query, the classes); the table, and what the run cost.
import { make, mark, part, segments } from './dom.js';

export class Inspector {
  constructor(root, page) {
    Object.assign(this, { root, page });
  }

  part(name) {
    return part(this.root, name);
  }

  // cards: which of them the view fills; summary: the view's.
  show(cards, summary, state) {
    for (const card of this.root.querySelectorAll('[data-card]')) card.hidden = !cards.includes(card.dataset.card);
    if (cards.includes('query')) this.query(summary, state);
    if (cards.includes('classes')) this.classes(summary, state);
  }

  // One query and its numbers.
  query(summary, state) {
    const say = (...given) => this.page.say(...given);
    const { cell } = summary;
    this.part('query').textContent =
      summary.kind === 'object'
        ? say('query.object', { query: summary.query })
        : say('query.token', { scale: summary.scale, column: cell[0] + 1, row: cell[1] + 1 });
    this.page.glossary.mark(this.part('query'));
    this.guess(summary);
    this.part('notes').replaceChildren(...summary.notes.map((text) => make('p', { class: 'ld-note' }, text)));
    this.part('query-scale-row').hidden = summary.kind === 'object'; // in the decoder no token asks
    const auto = { value: 'auto', label: say('query.auto') };
    const scales = summary.scales.map((name) => ({ value: name, label: name }));
    segments(this.part('query-scale'), [auto, ...scales], state.scale ?? 'auto', (scale) => this.page.change({ scale }));
    for (const button of this.part('query-scale').children) {
      const { value } = button.dataset;
      button.classList.toggle('waits', value !== 'auto' && !summary.asking.includes(value));
    }
    const heads = Array.from({ length: summary.heads }, (_, index) => ({ value: String(index + 1), label: String(index + 1) }));
    const all = { value: '', label: say('heads.all') };
    segments(this.part('heads'), [all, ...heads], state.head ?? '', (head) => this.page.change({ head }));
    this.chips(summary, state);
    const percent = (value) => `${(100 * value).toFixed(1)}%`;
    const { outside } = summary;
    this.part('legend').textContent = say('points.legend', { heaviest: summary.heaviest.toFixed(3) });
    this.part('outside').textContent = outside.points
      ? say('points.outside', { points: outside.points, all: summary.points, weight: percent(outside.weight) })
      : say('points.inside', { all: summary.points });
    const error = summary.error === 0 ? '0' : summary.error.toExponential(1).replace('e-', ' × 10⁻').replace(/⁻(\d+)/, (_, digits) => `⁻${superscript(digits)}`);
    this.part('rebuilt').replaceChildren(
      make('b', {}, say('rebuilt', { points: summary.points })),
      make('span', { 'data-error': String(summary.error) }, say('rebuilt.error', { error })),
    );
    this.part('rebuilt').classList.toggle('good', summary.error < 1e-5);
    this.part('rebuilt').title = say('rebuilt.why');
  }

  guess({ kind, detection, query }) {
    const node = this.part('guess');
    node.hidden = !detection;
    if (!detection) return;
    const values = { name: detection.name, score: detection.score.toFixed(2), query };
    const text = this.page.say(kind === 'object' ? 'query.guess' : 'query.became', values);
    node.replaceChildren(make('i', { class: 'ld-swatch', style: { background: detection.colour } }), text);
  }

  chips(summary, state) {
    const hidden = (state.hide ?? '').split(',').filter(Boolean);
    const box = this.part('scales');
    const known = summary.scales.join();
    if (box.dataset.choices !== known) {
      box.dataset.choices = known;
      box.replaceChildren(
        ...summary.scales.map((scale) => {
          const toggle = () => {
            const now = (this.page.state.hide ?? '').split(',').filter(Boolean);
            this.page.change({ hide: (now.includes(scale) ? now.filter((name) => name !== scale) : [...now, scale]).join() });
          };
          const label = [mark(this.page.scales[scale]), scale];
          return make('button', { type: 'button', class: 'ld-chip', 'data-value': scale, on: { click: toggle } }, ...label);
        }),
      );
    }
    for (const chip of box.children) chip.setAttribute('aria-pressed', String(!hidden.includes(chip.dataset.value)));
  }

  // What is shown, by class: chips that filter.
  classes({ classes }, state) {
    const chosen = chosenClasses(state);
    const toggle = (label) => {
      const now = chosenClasses(this.page.state);
      this.page.change({ cls: (now.includes(label) ? now.filter((each) => each !== label) : [...now, label]).join() });
    };
    const chip = ({ label, name, count, colour }) =>
      make(
        'button',
        { type: 'button', class: 'ld-class', 'data-class': label, 'aria-pressed': String(chosen.includes(String(label))), on: { click: () => toggle(String(label)) } },
        make('i', { class: 'ld-swatch', style: { background: colour } }),
        name,
        make('b', {}, String(count)),
      );
    const box = this.part('classes');
    const focused = document.activeElement?.dataset?.class;
    const none = make('p', { class: 'ld-small' }, this.page.say('detections.none'));
    const all = chosen.length ? [make('button', { type: 'button', class: 'ld-class', 'data-class': 'all', on: { click: () => this.page.change({ cls: '' }) } }, this.page.say('classes.all'))] : [];
    box.replaceChildren(...(classes.length ? [...classes.map(chip), ...all] : [none]));
    if (focused !== undefined) box.querySelector(`[data-class="${focused}"]`)?.focus();
  }

  // The detection under the pointer is lit in the table too.
  light(index) {
    for (const row of this.part('rows').children) row.classList.toggle('hover', row.dataset.index === String(index));
  }

  table(info, threshold, state) {
    const classes = chosenClasses(state);
    const listed = info.detections.map((entry, index) => ({ ...entry, index }));
    const shown = listed.filter((entry) => entry.score >= threshold && (!classes.length || classes.includes(String(entry.label))));
    const pick = (query) => {
      const view = this.page.view.leads || this.page.view.name;
      this.page.change({ q: String(query), at: '', view });
    };
    const row = (entry) => {
      const node = make(
        'tr',
        { 'data-query': entry.query, 'data-index': entry.index, 'aria-current': String(state.q === String(entry.query)) },
        make('td', {}, make('button', { type: 'button', class: 'ld-go' }, make('i', { class: 'ld-swatch', style: { background: entry.colour } }), this.page.className(entry.name))),
        make('td', {}, make('i', { class: 'ld-meter', style: { '--w': entry.score, '--c': entry.colour } }), entry.score.toFixed(2)),
      );
      const frame = (box) => () => this.page.plot.frame(box);
      const events = { click: () => pick(entry.query), pointerenter: frame(entry.box), pointerleave: frame(null), focusin: frame(entry.box), focusout: frame(null) };
      for (const [name, act] of Object.entries(events)) node.addEventListener(name, act);
      return node;
    };
    // Rows are made anew only when they are others, so that the keyboard's focus stays in the table.
    const box = this.part('rows');
    const key = JSON.stringify([info.run, state.lang, shown.map(({ index }) => index)]);
    if (box.dataset.key !== key) {
      box.dataset.key = key;
      box.replaceChildren(...shown.map(row));
    }
    for (const node of box.children) node.setAttribute('aria-current', String(state.q === node.dataset.query));
    this.part('empty').hidden = shown.length > 0;
    this.part('count').textContent = this.page.say('detections.more', { shown: shown.length, all: info.detections.length });
    this.page.glossary.mark(this.part('count'));
    for (const kind of ['json', 'png']) this.part(kind).href = `lite/run/${info.run}/detections.${kind}?t=${threshold}&cls=${classes.join()}`;
  }

  spent({ spent }) {
    const say = (...given) => this.page.say(...given);
    const stages = ['backbone', 'encoder', 'decoder'].filter((stage) => spent.milliseconds[stage] > 0 || spent.gmacs[stage] > 0);
    const total = stages.reduce((sum, stage) => sum + spent.milliseconds[stage], 0);
    const line = (name, milliseconds, gmacs, share, stage) =>
      make(
        'tr',
        { 'data-stage': stage },
        make('th', { scope: 'row' }, name),
        make('td', {}, make('i', { class: 'ld-meter', style: { '--w': share, '--c': 'var(--accent)' } }), `${milliseconds.toFixed(0)} ms`),
        make('td', {}, gmacs.toFixed(2)),
      );
    const head = ['spent.stage', 'spent.time', 'spent.gmacs'].map((key) => make('th', { scope: 'col' }, say(key)));
    const rows = stages.map((stage) => line(say(`spent.${stage}`), spent.milliseconds[stage], spent.gmacs[stage], spent.milliseconds[stage] / total, stage));
    const sum = line(say('spent.total'), total, spent.gmacs.total, 0, 'total');
    const tokens = Object.entries(spent.tokens);
    const chips = tokens.map(([scale, count]) =>
      make('span', { class: 'ld-token' }, mark(this.page.scales[scale]), `${scale} `, make('b', {}, count.toLocaleString('en'))),
    );
    const input = make('span', { class: 'ld-small' }, say('spent.input', { width: spent.input[1], height: spent.input[0] }));
    this.part('spent').replaceChildren(
      make('table', { class: 'ld-cost' }, make('thead', {}, make('tr', {}, ...head)), make('tbody', {}, ...rows, sum)),
      make('p', { class: 'ld-tokens' }, make('span', { class: 'ld-small' }, `${say('spent.tokens')} `), ...chips, input),
    );
    this.page.glossary.mark(this.part('spent'));
  }
}

function chosenClasses(state) {
  return (state.cls ?? '').split(',').filter(Boolean);
}

function superscript(digits) {
  return [...digits].map((digit) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[Number(digit)]).join('');
}
