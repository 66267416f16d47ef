// The state and its link. A state is a flat object of texts, as the server reads it from a link.

export function clean(state) {
  return Object.fromEntries(Object.entries(state).filter(([, value]) => value !== '' && value != null));
}

export function difference(before, after) {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return Object.fromEntries([...keys].filter((key) => before[key] !== after[key]).map((key) => [key, after[key]]));
}

export class Link {
  // keys: of a state; own: what a link may hold of it where the photo is somebody's own.
  constructor({ keys, own }) {
    Object.assign(this, { keys, own });
  }

  read() {
    const given = new URLSearchParams(window.location.search);
    return clean(Object.fromEntries(this.keys.map((key) => [key, given.get(key)])));
  }

  // The address of a state. What is selected in somebody's own photo is no part of it: nobody else has that photo.
  of(state) {
    const link = new URL(window.location.href);
    for (const key of this.keys) link.searchParams.delete(key);
    for (const [key, value] of Object.entries(state)) {
      if (value !== undefined && (state.example || this.own.includes(key))) link.searchParams.set(key, value);
    }
    return link;
  }

  write(state) {
    window.history.replaceState(window.history.state, '', this.of(state));
  }
}
