// The visitor's own photo while an example is shown, as in the lesson: its run is kept, and one press leads back to it.
import { make, part } from './dom.js';

export class Own {
  constructor(root, page) {
    Object.assign(this, { root, page, kept: null });
    const picture = make('img', { alt: '' });
    const label = make('span', { 'data-text': 'own.back' });
    this.button = make('button', { type: 'button', class: 'ld-example', 'data-part': 'own', hidden: true, on: { click: () => this.back() } }, picture, label);
    part(root, 'examples').append(this.button);
    part(root, 'tour-own').addEventListener('click', () => this.back());
  }

  // Called whenever something was drawn: what is chosen in the own photo stays chosen.
  show() {
    const { info, state, opened } = this.page;
    if (!info.example) {
      if (this.kept?.run !== info.run) this.button.firstChild.src = info.picture;
      this.kept = { run: info.run, state, job: opened };
    }
    const away = this.kept !== null && this.kept.run !== info.run;
    this.button.hidden = !away;
    part(this.root, 'tour-own').hidden = !away;
  }

  back() {
    const { run, state, job } = this.kept;
    const { lang, tour } = this.page.state;
    this.page.reopen(run, { ...state, lang, tour }, job);
  }
}
