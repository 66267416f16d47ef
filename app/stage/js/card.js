// What any view says beside the figure: notes, things to set, facts, further charts and a table. All of it comes from the server.
import { make, part, react, segments } from './dom.js';

const SHORT = 34; // letters that fit into a row of buttons beside their label
const LONG = 66; // letters that fit into rows of buttons below it
const CONFIG = { displayModeBar: false, responsive: false };

export class Card {
  constructor(root, page, Plotly) {
    Object.assign(this, { root, page, Plotly, figures: [] });
  }

  part(name) {
    return part(this.root, `view-${name}`);
  }

  // answer: {view, summary, controls, charts, job}.
  async show({ view, summary, controls, charts }, state) {
    const notes = this.page.view.cards.includes('query') ? summary.about : summary.notes; // a query's notes stand beside it
    this.part('title').textContent = this.page.say(`view.${view}`);
    this.part('notes').replaceChildren(...(notes ?? []).map((text) => make('p', { class: 'ld-note' }, text)));
    this.part('facts').replaceChildren(...(summary.facts ?? []).flatMap(([label, text]) => [make('dt', {}, whole(label)), make('dd', {}, whole(text))]));
    const verdict = this.part('verdict');
    verdict.replaceChildren(...(summary.answer ? [make('b', {}, summary.answer.title), summary.answer.text] : []));
    verdict.dataset.tone = summary.answer?.tone ?? '';
    this.page.glossary.mark(this.part('notes'), this.part('facts'), verdict);
    this.part('badge').textContent = summary.badge ?? '';
    this.controls(controls, view);
    this.table(summary.table, state);
    await this.charts(charts);
    const said = [...this.root.querySelectorAll('[data-part="view-card"] > :not(h2)')];
    part(this.root, 'view-card').hidden = !said.some((node) => !node.hidden && node.childNodes.length > 0);
  }

  // ---- things to set ----

  // Built anew only when they are others, so that the keyboard's focus and a dragged slider stay.
  controls(controls, view) {
    const box = this.part('controls');
    const key = JSON.stringify([view, this.page.state.lang, controls.map(({ value, values, ...rest }) => rest)]);
    if (box.dataset.key !== key) {
      box.dataset.key = key;
      box.replaceChildren(...controls.map((control) => this.control(control)));
    }
    controls.forEach((control, index) => box.children[index].put(control.value, control));
  }

  control(control) {
    const { key, kind, label, options = [] } = control;
    const set = (value) => this.page.change({ [key]: String(value) });
    const row = make('div', { class: 'ld-control', 'data-control': key }, make('span', {}, label));
    if (kind === 'range') this.slider(row, control, set);
    else if (kind === 'toggle') this.toggle(row, control, set);
    else if (kind === 'text') this.field(row, control, set);
    else {
      const choices = options.map(([value, name]) => ({ value: String(value), label: String(name) }));
      const letters = choices.reduce((sum, choice) => sum + choice.label.length + 3, 0);
      if (letters > LONG) { this.list(row, control, set); return row; }
      const seg = make('div', { class: 'ld-seg', role: 'group', 'aria-label': label });
      row.classList.toggle('wide', label.length + letters > SHORT);
      row.append(seg);
      row.put = (value) => segments(seg, choices, String(value ?? ''), set);
    }
    return row;
  }

  // With `values` the slider's place, counted from min, chooses one of them; they may change while it is dragged.
  slider(row, { label, min, max, step }, set) {
    let values = null;
    const output = make('output', {});
    const input = make('input', { type: 'range', min, max, step: step ?? 1, 'aria-label': label });
    input.addEventListener('input', () => {
      output.textContent = input.value;
      set(values ? values[Number(input.value) - min] : input.value);
    });
    row.append(output, input);
    row.put = (value, control) => {
      values = control.values ?? null;
      output.textContent = String(value);
      if (document.activeElement !== input) input.value = String(value);
    };
  }

  toggle(row, { label }, set) {
    const button = make('button', { type: 'button', class: 'ld-switch', role: 'switch', 'aria-label': label });
    button.addEventListener('click', () => set(button.getAttribute('aria-checked') === 'true' ? '' : '1'));
    row.append(button);
    row.put = (value) => button.setAttribute('aria-checked', String(Boolean(value) && value !== '0'));
  }

  field(row, { label }, set) {
    const input = make('input', { type: 'text', 'aria-label': label, autocomplete: 'off', spellcheck: 'false' });
    input.addEventListener('change', () => set(input.value.trim()));
    row.append(input);
    row.put = (value) => { if (document.activeElement !== input) input.value = value ?? ''; };
  }

  list(row, { label, options }, set) {
    const select = make('select', { 'aria-label': label }, ...options.map(([value, name]) => make('option', { value }, name)));
    select.addEventListener('change', () => set(select.value));
    row.append(select);
    row.put = (value) => { select.value = String(value ?? ''); };
  }

  // ---- tables and charts ----

  table(table, state) {
    const box = this.part('table');
    if (!table || !table.rows.length) { box.replaceChildren(); return; }
    const cell = (text) => make('td', {}, String(text ?? ''));
    const rows = table.rows.map(({ cells, set, chosen }) => {
      if (!set) return make('tr', {}, ...cells.map(cell));
      const [first, ...others] = cells;
      const node = make('tr', { class: 'can' }, make('td', {}, make('button', { type: 'button', class: 'ld-go' }, String(first ?? ''))), ...others.map(cell));
      if (chosen ?? Object.entries(texts(set)).every(([key, value]) => (state[key] ?? '') === value)) node.setAttribute('aria-current', 'true');
      node.addEventListener('click', () => this.page.change(texts(set)));
      return node;
    });
    const focused = [...box.querySelectorAll('tbody tr')].indexOf(document.activeElement.closest('tr'));
    const head = make('tr', {}, ...table.head.map((text) => make('th', { scope: 'col' }, text)));
    box.replaceChildren(make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows)));
    if (focused >= 0) rows[Math.min(focused, rows.length - 1)].querySelector('button')?.focus();
  }

  // A chart lies in the card that it names, else in the view's own.
  async charts(charts) {
    this.figures = charts.map((sent) => ({ sent, ...JSON.parse(sent) }));
    for (const room of this.root.querySelectorAll('[data-charts]')) {
      const own = this.figures.filter(({ layout }) => (layout.meta?.card ?? 'view') === room.dataset.charts);
      while (room.children.length > own.length) {
        this.Plotly.purge(room.lastChild);
        room.lastChild.remove();
      }
      while (room.children.length < own.length) room.append(make('div', { class: 'ld-chart' }));
      own.forEach((figure, index) => { figure.node = room.children[index]; });
    }
    await this.draw();
  }

  async draw() {
    if (this.part('charts').childElementCount) part(this.root, 'view-card').hidden = false; // what is hidden has no width
    await Promise.all(this.figures.map(async ({ sent, node, data, layout }) => {
      const font = { ...layout.font, color: this.page.ink };
      const size = { width: node.clientWidth || 300, height: layout.height ?? 190 };
      const drawn = [sent, font.color, size.width].join();
      if (node.drawn === drawn) return; // most clicks change the photo's figure alone
      node.drawn = drawn;
      const copy = structuredClone({ data, layout: { dragmode: false, ...layout, font, ...size } });
      await react(this.Plotly, node, copy.data, copy.layout, CONFIG);
      if (node.dataset.listens) return;
      node.dataset.listens = 'yes';
      node.on('plotly_click', (event) => {
        const set = settings(event);
        if (set) this.page.change(set);
      });
    }));
  }
}

// What a clicked mark sets: customdata or meta of the mark or of its trace carries {set: {state parameters}}.
export function settings({ points }) {
  for (const point of points ?? []) {
    const set = point.customdata?.set ?? point.data?.meta?.set ?? point.fullData?.meta?.set;
    if (set) return texts(set);
  }
  return null;
}

function texts(set) {
  return Object.fromEntries(Object.entries(set).map(([key, value]) => [key, value == null ? '' : String(value)]));
}

// What stands in brackets stays on one line.
function whole(text) {
  return String(text).replace(/\([^)]*\)/g, (part) => part.replaceAll(' ', '\u00a0'));
}
