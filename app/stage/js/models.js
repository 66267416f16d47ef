// Which model: the page's own, one of the list, or any on the Hub by its name.
import { make, part } from './dom.js';

const NAME = /^[A-Za-z0-9][\w.-]{0,95}\/[\w.-]{1,96}$/; // as on the Hub: owner/name

export function models(root, page) {
  const dialog = part(root, 'models');
  const field = part(root, 'model-id');
  const choose = (id) => {
    dialog.close();
    page.choose(id);
  };
  const entry = ({ id, name }) =>
    make(
      'button',
      { type: 'button', class: 'ld-choice', 'data-model': id, on: { click: () => choose(id) } },
      make('b', id ? {} : { 'data-text': 'models.own' }, name || id),
      id && name ? make('span', {}, id) : null,
    );
  const heading = (group) => make('h3', { class: 'ld-choices-of', 'data-text': `models.${group}` });
  const first = ({ group }, index) => group && group !== page.models[index - 1]?.group;
  const entries = page.models.flatMap((model, index) => (first(model, index) ? [heading(model.group), entry(model)] : [entry(model)]));
  part(root, 'model-list').replaceChildren(entry({ id: '' }), ...entries);
  part(root, 'model-button').addEventListener('click', () => {
    const now = page.state.model ?? '';
    for (const button of root.querySelectorAll('.ld-choice')) button.setAttribute('aria-pressed', String(button.dataset.model === now));
    field.value = page.models.some(({ id }) => id === now) ? '' : now;
    dialog.showModal();
  });
  part(root, 'model-form').hidden = !page.hub;
  part(root, 'model-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const id = field.value.trim().replace(/^https?:\/\/[^/]+\//, '').replace(/\/+$/, '');
    const sensible = NAME.test(id);
    field.setCustomValidity(sensible ? '' : page.say('models.nonsense'));
    field.reportValidity();
    if (sensible) choose(id);
  });
  field.addEventListener('input', () => field.setCustomValidity(''));
  part(root, 'models-close').addEventListener('click', () => dialog.close());
}
