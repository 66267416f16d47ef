// The views' tabs: one row that scrolls where it must. Arrow keys walk along it, as in any row of tabs.
import { make, part } from './dom.js';

export class Tabs {
  constructor(root, page) {
    this.box = part(root, 'views');
    const tab = ({ name }) => make(
      'button',
      { type: 'button', role: 'tab', id: `ld-tab-${name}`, 'aria-controls': 'ld-stage', tabindex: -1, 'data-view': name, 'data-text': `view.${name}`, on: { click: () => page.change({ view: name }) } },
    );
    const groups = [...new Set(page.views.map(({ group }) => group))];
    this.box.replaceChildren(...groups.map((group) => make(
      'div', { class: 'ld-tabs', role: 'presentation' },
      make('span', { class: 'ld-tabs-name', 'aria-hidden': 'true', 'data-text': `views.${group}`, 'data-hint': `views.${group}.text` }),
      ...page.views.filter((view) => view.group === group).map(tab),
    )));
    this.panel = root.querySelector('#ld-stage');
    this.tabs = [...this.box.querySelectorAll('[role="tab"]')];
    this.box.addEventListener('keydown', (event) => this.key(event));
  }

  // needs: by view, the sentence that says why it cannot show the run what it is for.
  show(view, needs) {
    for (const tab of this.tabs) {
      const why = needs[tab.dataset.view] ?? '';
      Object.assign(tab, { title: why, ariaDescription: why || null });
      tab.dataset.lacks = why ? 'yes' : 'no';
      const now = tab.dataset.view === view;
      tab.dataset.fresh = String(now && tab.getAttribute('aria-selected') !== 'true');
      tab.setAttribute('aria-selected', String(now));
      tab.tabIndex = now ? 0 : -1;
    }
    this.panel.setAttribute('aria-labelledby', `ld-tab-${view}`);
    const fresh = this.box.querySelector('[data-fresh="true"]'); // after all have their width: the chosen one is bold
    if (fresh) this.bring(fresh);
  }

  bring(tab) {
    this.box.scrollLeft += tab.getBoundingClientRect().left - this.box.getBoundingClientRect().left - (this.box.clientWidth - tab.offsetWidth) / 2;
  }

  key(event) {
    const { tabs } = this;
    const place = tabs.indexOf(event.target);
    const next = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (place < 0 || next === undefined) return;
    event.preventDefault();
    const tab = tabs[(next + tabs.length) % tabs.length];
    tab.focus();
    tab.click();
  }
}
