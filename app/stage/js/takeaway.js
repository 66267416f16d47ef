// Taking a figure away: as a picture, as a page of its own, as a link, and as the lines of Python that draw it again.
import { make, part } from './dom.js';

const PICTURE_SIDE = 1600; // pixels of a downloaded picture's longer side
const HEAD = 58; // pixels for title and legend of a picture
const FOOT = 30;
// The frame takes its content's height; a page that allows no scripts leaves it at what is written.
const AS_TALL = `<script>{ const frame = document.currentScript.previousElementSibling; addEventListener("message", ({ source, data }) => {
  if (source === frame.contentWindow && data?.type === "lite-detr") frame.height = data.height; }); }</script>`;

export class TakeAway {
  constructor(root, page, Plotly) {
    Object.assign(this, { root, page, Plotly, dialog: part(root, 'take-dialog') });
    part(root, 'take-away').addEventListener('click', () => this.open());
    part(root, 'take-close').addEventListener('click', () => this.dialog.close());
    for (const kind of ['svg', 'png']) root.querySelector(`[data-file="${kind}"]`).addEventListener('click', () => this.picture(kind));
    for (const button of root.querySelectorAll('[data-copy]')) button.addEventListener('click', () => this.copy(button));
  }

  open() {
    const { page } = this;
    if (!page.info) return;
    const { state, info } = page;
    const own = !state.example;
    part(this.root, 'take-what').textContent = `${page.say(`view.${page.root.dataset.view}`)} · ${info.name} · ${info.source || info.model}`;
    part(this.root, 'take-link').textContent = page.link.of(state).href;
    part(this.root, 'take-private').hidden = !own;
    part(this.root, 'take-code').textContent = `# ${page.say('take.where')}\n${snippet(state, info)}`;
    const embedded = page.link.of(state);
    embedded.searchParams.set('embed', '1');
    part(this.root, 'take-frame').textContent = `<iframe src="${embedded.href}" title="Lite DETR, live" width="100%" height="760" style="border:0" loading="lazy"></iframe>\n${AS_TALL}`;
    this.linkFiles();
    for (const button of this.root.querySelectorAll('[data-copy]')) button.textContent = page.say('take.copy');
    this.dialog.showModal();
  }

  linkFiles() {
    const { state, info } = this.page;
    for (const [kind, file] of [['html', 'figure.html'], ['csv', 'points.csv']]) {
      const href = `lite/run/${info.run}/${file}?${new URLSearchParams(state)}`;
      Object.assign(this.root.querySelector(`[data-file="${kind}"]`), { href, download: `${this.name()}.${kind}` });
    }
  }

  name() {
    const stem = this.page.info.name.replace(/\.\w+$/, '').replace(/[^\w -]/g, '').trim() || 'photo';
    return `${stem}-${this.page.root.dataset.view}-lite-detr`;
  }

  // The figure as it is on the screen, zoom included, with the photo inside the file, and words that say what it is.
  async picture(format) {
    const { plot, info, ink } = this.page;
    const photo = await dataUri(this.page.network, info.picture);
    const { width, height: room } = plot.node._fullLayout;
    const legend = this.legend();
    const [head, foot] = [HEAD, legend ? FOOT : 0];
    const height = (plot.panels.length && !plot.zoomed ? Math.round(width * plot.tall) : room) + head + foot;
    const layout = structuredClone(plot.node.layout);
    if (!plot.zoomed) { // not the stage's, which may be wider
      for (const axis of plot.axes) layout[axis].range = [...plot.figure.layout[axis].range];
      for (const [axis, domain] of plot.domains(width, height - head - foot)) layout[axis].domain = domain;
    }
    for (const image of layout.images ?? []) if (image.source === info.picture) image.source = photo;
    const paper = getComputedStyle(this.root).getPropertyValue('--panel').trim();
    const { margin, annotations = [] } = layout;
    const words = (text, y, yanchor, yshift) => ({ text, xref: 'paper', yref: 'paper', x: 0, xanchor: 'left', xshift: 10, y, yanchor, yshift, align: 'left', showarrow: false });
    Object.assign(layout, {
      width, height,
      paper_bgcolor: paper,
      font: { ...layout.font, color: ink },
      margin: { ...margin, t: margin.t + head, b: margin.b + foot },
      annotations: [...annotations, words(this.title(), 1, 'bottom', 6 + margin.t), ...(legend ? [words(legend, 0, 'top', -6 - margin.b)] : [])],
    });
    const scale = format === 'png' ? Math.max(1, PICTURE_SIDE / Math.max(width, height)) : 1;
    const data = structuredClone(plot.node.data);
    const url = await this.Plotly.toImage({ data, layout, config: {} }, { format, width, height, scale });
    const link = make('a', { href: url, download: `${this.name()}.${format}` });
    link.click();
  }

  // View, photo if it is an example, step and query; the model below.
  title() {
    const { page } = this;
    const { info, summary } = page;
    const what = [page.say(`view.${page.view.name}`), info.example && page.say(`example.${info.example}`), summary.step && summary.step !== 'boxes' && page.stepName(summary.step)];
    const who = page.view.cards.includes('query') ? part(this.root, 'query').textContent : '';
    const below = [who, `${page.say('threshold')} ${page.threshold().toFixed(2)}`, info.source || info.model, 'Lite DETR, live'];
    return `<b>${what.filter(Boolean).join(' · ')}</b><br><span style="font-size:12px">${below.filter(Boolean).join(' · ')}</span>`;
  }

  // The marks of the scales that are drawn; '' where none is.
  legend() {
    const { plot, scales } = this.page;
    const drawn = [...new Set((plot.node.data ?? []).map(({ meta }) => meta).filter((meta) => meta in scales))].sort();
    return drawn.map((scale) => `<span style="color:${scales[scale].colour}">${scales[scale].glyph}</span> ${scale}`).join('   ');
  }

  async copy(button) {
    const node = part(this.root, button.dataset.copy);
    try {
      await navigator.clipboard.writeText(node.textContent);
      button.textContent = this.page.say('take.copied');
    } catch { // not allowed here: the text is selected, to be copied by hand
      window.getSelection().selectAllChildren(node);
    }
  }
}

// Lines of Python that draw the figure again without the page.
export function snippet(state, info) {
  const { lang, model, example, ...rest } = state;
  const query = new URLSearchParams({ ...rest, ...(lang && lang !== 'en' ? { lang } : {}) }).toString();
  const given = [text(example ?? info.name), text(query), ...(model ? [`model=${text(model)}`] : [])];
  return ['from app.figure import redraw', '', `figure = redraw(${given.join(', ')})`, 'figure.write_html("figure.html")'].join('\n');
}

function text(value) {
  return JSON.stringify(value);
}

async function dataUri(network, address) {
  const blob = await (await network.fetch(address)).blob();
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(blob);
  });
}
