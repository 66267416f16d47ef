// What a view needs the model again for: a button, how far it is, and a way out. One job at a time; the newest counts. Of some
// views it begins by itself, until somebody cancels it.
import { part } from './dom.js';

const DOUBT = 6_000; // milliseconds without an event, after which it looks whether the server is there

export class Work {
  constructor(root, page, trigger) {
    Object.assign(this, { root, page, trigger, request: null, ticket: null, cancelled: null });
    part(root, 'compute').addEventListener('click', () => this.start());
    part(root, 'work-cancel').addEventListener('click', () => {
      this.cancelled = this.page.info.run;
      this.stop();
    });
  }

  // job: {key, done} of the state shown, or null.
  show(job) {
    this.job = job;
    const busy = this.ticket !== null;
    part(this.root, 'work').hidden = !busy && (!job || job.done);
    part(this.root, 'compute').hidden = !job || job.done || busy;
    part(this.root, 'working').hidden = !busy;
    if (!busy) part(this.root, 'work-text').textContent = '';
  }

  // focus: whether Cancel gets it, as Compute had it.
  start(focus = true) {
    const { page } = this;
    this.ticket = page.nextTicket();
    this.request = { ticket: this.ticket, visitor: page.visitor, run: page.info.run, state: page.state };
    this.server = page.network.started;
    this.progress(0, page.say('status.waiting'));
    this.show(this.job);
    if (focus) part(this.root, 'work-cancel').focus({ preventScroll: true });
    page.keep(page.info.run);
    this.trigger();
    this.watch();
  }

  // What was on its way before a reload.
  resume() {
    if (this.job && !this.job.done && this.ticket === null) this.start();
  }

  // What needs no button.
  begin() {
    const { page, job } = this;
    if (page.view.begins && job && !job.done && this.ticket === null && this.cancelled !== page.info.run) this.start(false);
  }

  watch() {
    clearTimeout(this.patience);
    this.patience = setTimeout(() => this.doubt(), DOUBT);
  }

  // Nothing was heard for a while. A server that went away forgot the job: it is begun again.
  async doubt() {
    const { ticket, page: { network } } = this;
    if (ticket === null) return;
    const there = await network.alive();
    if (!there) await network.back();
    if (ticket !== this.ticket) return;
    if (there && network.started === this.server) this.watch();
    else {
      await this.page.look({}); // makes the run anew where it is gone, too
      if (ticket === this.ticket && this.page.root.dataset.busy === 'no') this.start();
      else this.stop();
    }
  }

  jobRequest() {
    return this.request;
  }

  stop() {
    if (this.ticket === null) return;
    this.page.cancel(this.ticket);
    this.ticket = null;
    this.page.keep(this.page.info.run);
    this.show(this.job);
  }

  progress(share, text) {
    part(this.root, 'work-share').value = share;
    part(this.root, 'work-text').textContent = text;
  }

  async onEvent(event) {
    if (event.ticket !== this.ticket || this.ticket === null) return;
    this.watch();
    if (event.waiting) { this.progress(0, this.page.say('status.before', { count: event.waiting })); return; }
    if (event.share !== undefined) { this.progress(event.share, event.text || this.page.say('work.begun')); return; }
    this.ticket = null;
    if (event.expired) { await this.page.remake.start(this.page.opened, () => this.start()); return; }
    if (event.error) {
      this.cancelled = this.page.info.run;
      this.show(this.job);
      this.page.fail(event.error);
      return;
    }
    this.show(this.job);
    await this.page.look({});
  }
}
