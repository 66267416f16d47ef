// The state and its link. A state is a flat object of texts, as the server reads it from a link.

export const KEYS = [
  'view', 't', 'q', 'at', 'scale', 'step', 'head', 'hide', 'example', 'lang', 'model',
  'cls', 'heat', 'n', 'box', 'mute', 'film', 'plan', 'other', 'tour',
];
const OWN = ['t', 'scale', 'step', 'head', 'hide', 'lang', 'model']; // what a link may hold where the photo is somebody's own

export function clean(state) {
  return Object.fromEntries(Object.entries(state).filter(([, value]) => value !== '' && value != null));
}

export function difference(before, after) {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return Object.fromEntries([...keys].filter((key) => before[key] !== after[key]).map((key) => [key, after[key]]));
}

export function readLink() {
  const given = new URLSearchParams(window.location.search);
  return clean(Object.fromEntries(KEYS.map((key) => [key, given.get(key)])));
}

// The address of a state. What is selected in somebody's own photo is no part of it: nobody else has that photo.
export function linkOf(state) {
  const link = new URL(window.location.href);
  for (const key of KEYS) link.searchParams.delete(key);
  for (const [key, value] of Object.entries(state)) {
    if (value !== undefined && (state.example || OWN.includes(key))) link.searchParams.set(key, value);
  }
  return link;
}

export function writeLink(state) {
  window.history.replaceState(window.history.state, '', linkOf(state));
}
