// Which provider and model answer the next message.

import { json } from './api.js';
import { byId, el, stored } from './dom.js';

const CHOICE = 'weir.choice';

export class Picker {
  #providers = [];
  #choice = {};

  constructor() {
    this.button = byId('picker');
    this.panel = byId('models');
    this.panel.addEventListener('change', (event) => this.#chosen(event.target));
    this.panel.addEventListener('toggle', (event) => {
      if (event.newState === 'open') (this.panel.querySelector('input:checked') ?? this.panel.querySelector('input'))?.focus();
    });
    this.panel.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') { event.preventDefault(); this.panel.hidePopover(); this.button.focus(); }
    });
  }

  /** What goes into a message: nothing where the server's default is meant. */
  choice() {
    const { provider, model } = this.#choice;
    return provider ? { provider, ...(model ? { model } : {}) } : {};
  }

  async load() {
    this.#providers = await json('GET', '/api/providers');
    const usable = this.#providers.filter((provider) => provider.available);
    const kept = JSON.parse(stored.get(CHOICE) ?? 'null');
    const known = usable.find((provider) => provider.name === kept?.provider);
    const byDefault = usable.find((provider) => provider.default) ?? usable[0];
    if (known) this.#choice = kept;
    else if (byDefault) this.#choice = { provider: byDefault.name, model: byDefault.default_model };
    this.#draw();
  }

  #draw() {
    const order = (provider) => (provider.available ? 0 : 1);
    const sorted = [...this.#providers].sort((a, b) => order(a) - order(b));
    this.panel.replaceChildren(el('p', { class: 'panel-title', text: 'Who answers' }), ...sorted.map((provider) => this.#group(provider)));
    this.#label();
  }

  #group(provider) {
    const set = el('fieldset', { disabled: !provider.available }, el('legend', { text: provider.name }));
    if (!provider.available) {
      set.append(el('p', { class: 'why', text: provider.why_not || 'Not available on this server.' }));
      return set;
    }
    const models = new Set([provider.default_model, ...provider.models].filter(Boolean));
    const isOther = this.#choice.provider === provider.name && !models.has(this.#choice.model);
    if (isOther && this.#choice.model) models.add(this.#choice.model);
    for (const model of models) {
      const isChosen = this.#choice.provider === provider.name && this.#choice.model === model;
      const input = el('input', { type: 'radio', name: 'model', data: { provider: provider.name, model }, checked: isChosen });
      const note = model === provider.default_model && provider.default ? el('small', { text: 'default' }) : null;
      set.append(el('label', {}, input, el('span', { text: model }), note));
    }
    if (provider.any_model) {
      const label = `Another model of ${provider.name}`;
      set.append(el('input', { type: 'text', placeholder: 'Another model…', 'aria-label': label, spellcheck: 'false',
        autocapitalize: 'off', data: { provider: provider.name } }));
    }
    return set;
  }

  #chosen(input) {
    const model = input.type === 'radio' ? input.dataset.model : input.value.trim();
    if (!model) return;
    this.#choice = { provider: input.dataset.provider, model };
    stored.set(CHOICE, JSON.stringify(this.#choice));
    if (input.type === 'radio') this.#label();
    else this.#draw();
  }

  #label() {
    const { provider, model } = this.#choice;
    const text = !provider ? 'No provider' : model && model !== provider ? `${provider} · ${model}` : provider;
    this.button.querySelector('span').textContent = text;
    this.button.setAttribute('aria-label', `Who answers: ${text}`);
  }
}
