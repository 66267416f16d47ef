// The state and its link. A state is a flat object of texts, as the server reads it from a link.

export function clean(state) {
  return Object.fromEntries(Object.entries(state).filter(([, value]) => value !== '' && value != null));
}

export function difference(before, after) {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return Object.fromEntries([...keys].filter((key) => before[key] !== after[key]).map((key) => [key, after[key]]));
}

export class Link {
  // keys: of a state; own: what a link may hold of it where the photo is somebody's own; visited: what the browser's Back undoes.
  constructor({ keys, own, visited }) {
    Object.assign(this, { keys, own, visited, written: null });
    this.language = navigator.language?.startsWith('ko') ? 'ko' : 'en'; // the browser's
  }

  read() {
    const given = new URLSearchParams(window.location.search);
    return clean({ lang: this.language, ...clean(Object.fromEntries(this.keys.map((key) => [key, given.get(key)]))) });
  }

  // The address of a state. What is selected in somebody's own photo is no part of it: nobody else has that photo.
  of(state) {
    const link = new URL(window.location.href);
    for (const key of this.keys) link.searchParams.delete(key);
    for (const [key, value] of Object.entries(state)) {
      if (value !== undefined && (state.example || this.own.includes(key))) link.searchParams.set(key, value);
    }
    if (this.language !== 'en' && !state.lang) link.searchParams.set('lang', 'en');
    return link;
  }

  // The address becomes the state's: as a new page of the browser's history where something else is looked at. Sliders and steps
  // are no pages. run: its id, for a photo that no link holds.
  write(state, run, move = false) {
    const before = this.written;
    const other = before?.run !== undefined && before.run !== run; // a run that begins has no id yet, and is the one that gets it
    const turned = before !== null && (other || this.visited.some((key) => (before.state[key] ?? '') !== (state[key] ?? '')));
    this.written = { state, run };
    const entry = { ...window.history.state, liteDetr: this.written };
    if (turned && !move) window.history.pushState(entry, '', this.of(state));
    else window.history.replaceState(entry, '', this.of(state));
  }

  // Calls back with {state, run} when the visitor goes back or forth.
  follow(go) {
    window.addEventListener('popstate', ({ state }) => {
      if (!state?.liteDetr) return;
      this.written = { state: state.liteDetr.state };
      go(state.liteDetr);
    });
  }
}
