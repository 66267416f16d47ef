// Words that are explained where they stand: dotted, a press opens what they mean, by mouse, touch and keyboard.
import { make, part } from './dom.js';

export class Glossary {
  // glossary: {language: [{id, names, text}, …]}.
  constructor(root, page, glossary) {
    Object.assign(this, { root, page, glossary, box: part(root, 'term') });
  }

  get terms() {
    return this.glossary[this.page.state.lang ?? 'en'] ?? this.glossary.en;
  }

  // The first of each term in a node becomes a button; the text stays what it was.
  mark(...nodes) {
    const byName = new Map(this.terms.flatMap((term) => term.names.map((name) => [name, term])));
    const names = [...byName.keys()].sort((a, b) => b.length - a.length).map((name) => name.replace(/[()+]/g, '\\$&'));
    const pattern = new RegExp(`(?<![\\w-])(${names.join('|')})(?![\\w-])`);
    for (const node of nodes) {
      const seen = new Set();
      const texts = document.createTreeWalker(node, NodeFilter.SHOW_TEXT, ({ parentNode }) => (parentNode.closest('button, a') ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
      for (let text = texts.nextNode(); text; text = texts.nextNode()) {
        const found = pattern.exec(text.data);
        if (!found) continue;
        const rest = text.splitText(found.index).splitText(found[0].length);
        const term = byName.get(found[0]);
        if (!seen.has(term.id)) rest.previousSibling.replaceWith(joined(text, this.button(term, found[0]), rest));
        seen.add(term.id);
        texts.currentNode = rest.previousSibling; // what follows is looked through too
      }
    }
  }

  button(term, name) {
    const button = make('button', { type: 'button', class: 'ld-term', 'data-term': term.id, on: { click: () => this.open(button, term, name) } }, name);
    return button;
  }

  open(button, { text }, name) {
    this.box.replaceChildren(make('b', {}, name), text);
    this.box.showPopover();
    const at = button.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.box;
    const below = at.bottom + 6 + offsetHeight < window.innerHeight;
    this.box.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - offsetWidth - 8))}px`;
    this.box.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - offsetHeight - 6)}px`;
  }

  // All of them, for who wants to read on.
  list(box) {
    const key = this.page.state.lang ?? 'en';
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren(...this.terms.flatMap(({ names, text }) => [make('dt', {}, names.join(', ')), make('dd', {}, text)]));
  }
}

// Around a button a line may break even where no space is: what stands close to it, as a bracket or a Korean particle, stays with it.
function joined(before, button, after) {
  const [head] = /\S*$/.exec(before.data);
  const [tail] = /^\S*/.exec(after.data);
  before.deleteData(before.length - head.length, head.length);
  after.deleteData(0, tail.length);
  return make('span', { class: 'ld-joined' }, head, button, tail);
}
