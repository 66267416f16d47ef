// A run that the server no longer has, because others needed the room or it began anew, made again from the browser's own photo.
import { make, part } from './dom.js';

const TRIES = 3; // in a row, without anything drawn in between

export class Remake {
  constructor(root, page) {
    Object.assign(this, { page, tries: 0, sending: null, ticket: null });
    for (const link of root.querySelectorAll('a[download]')) {
      link.addEventListener('click', (event) => {
        event.preventDefault();
        this.download(link);
      });
    }
    this.dialog = part(root, 'take-dialog');
  }

  // job: what made the run; its state is `page.state`. then: what follows when it is there.
  async start(job, then = null) {
    const { page } = this;
    if (this.going) { // a look-up in the run that is gone: what it changed holds for the one to come
      page.next = { ...page.state };
      return;
    }
    this.tries += 1;
    if (!job || this.tries > TRIES) { this.sorry(); return; }
    const { running } = page;
    let again = job;
    if (job.photo) {
      this.sending = running;
      page.busy(page.say('status.waiting'));
      try {
        again = await sent(page, job.photo);
      } catch {
        this.sorry();
        return;
      } finally {
        this.sending = null;
      }
      if (running !== page.running) return; // another photo came
    }
    page.analyse(again, true, then);
    this.ticket = page.running;
  }

  // Whether a run is on its way already.
  get going() {
    const { page } = this;
    return this.sending === page.running || (this.ticket === page.running && page.root.dataset.busy === 'yes');
  }

  sorry() {
    this.tries = 0;
    this.page.fail(this.page.say('error.expired'));
  }

  // A file of the run, which is made again first where it has to be.
  async download(link) {
    const { page } = this;
    const { expired } = await page.ask('open_run', { run: page.info.run, state: { lang: page.state.lang } });
    const get = () => {
      if (this.dialog.contains(link)) page.takeAway.linkFiles();
      make('a', { href: link.href, download: link.download }).click();
    };
    if (expired) await this.start(page.opened, get);
    else get();
  }
}

// A photo goes to the server: the job that looks at it.
export async function sent(page, photo) {
  const { path, url } = await page.network.upload(() => page.upload(photo));
  const given = { path, url, orig_name: photo.name || 'photo.png', size: photo.size, mime_type: photo.type };
  return { file: { ...given, meta: { _type: 'gradio.FileData' } }, photo };
}
