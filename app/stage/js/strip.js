// Several photos at once: looked at one after the other, a strip to step through them, and one COCO file for all.
import { make, part } from './dom.js';

export class Strip {
  // send: sends one photo to be looked at.
  constructor(root, page, send) {
    Object.assign(this, { page, send, box: part(root, 'strip'), entries: [], filling: false });
    this.all = part(root, 'strip-coco');
    this.all.addEventListener('click', () => this.download());
  }

  open(files) {
    for (const { url } of this.entries) URL.revokeObjectURL(url);
    this.entries = [...files].map((file) => ({ file, url: URL.createObjectURL(file), run: null, job: null }));
    const button = (entry) => make(
      'button',
      { type: 'button', class: 'ld-example', 'aria-label': entry.file.name, title: entry.file.name, on: { click: () => { this.filling = false; this.go(entry); } } },
      make('img', { src: entry.url, alt: '' }),
    );
    part(this.box, 'strip-photos').replaceChildren(...this.entries.map(button));
    this.box.hidden = false;
    this.filling = true;
    this.show();
    this.go(this.entries[0]);
  }

  // What is set stays from photo to photo; what is chosen in one does not.
  go(entry) {
    const { page } = this;
    if (!entry.run) { this.send(page, entry.file); return; }
    const { q, at, box, mute, example, ...kept } = page.state;
    page.reopen(entry.run, kept, entry.job);
  }

  // A run was opened: the strip's own is noted, and the next photo comes.
  opened({ run }, job) {
    const here = this.entries.find(({ file }) => file === job?.photo);
    if (here) Object.assign(here, { run, job });
    this.show(here);
    if (!here || !this.filling) return;
    const next = this.entries.find((entry) => !entry.run);
    this.filling = next !== undefined;
    this.go(next ?? this.entries[0]);
  }

  show(here) {
    [...part(this.box, 'strip-photos').children].forEach((node, index) => node.setAttribute('aria-pressed', String(this.entries[index] === here)));
    const done = this.entries.filter(({ run }) => run).length;
    this.all.disabled = done < this.entries.length;
    this.all.textContent = this.page.say('strip.coco', { done, all: this.entries.length });
  }

  async download() {
    const { network, threshold, state } = this.page;
    const query = `t=${threshold.call(this.page)}&cls=${state.cls ?? ''}`;
    const whole = { info: null, images: [], categories: [], annotations: [] };
    for (const { run } of this.entries) {
      const part = await (await network.fetch(`lite/run/${run}/detections.json?${query}`)).json();
      const id = whole.images.length + 1;
      whole.info ??= part.info;
      whole.images.push(...part.images.map((image) => ({ ...image, id })));
      whole.categories.push(...part.categories.filter((category) => !whole.categories.some((known) => known.id === category.id)));
      for (const each of part.annotations) whole.annotations.push({ ...each, id: whole.annotations.length + 1, image_id: id });
    }
    const file = new Blob([JSON.stringify(whole, null, 1)], { type: 'application/json' });
    make('a', { href: URL.createObjectURL(file), download: 'photos-lite-detr.json' }).click();
  }
}
