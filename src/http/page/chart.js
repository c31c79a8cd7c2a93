// Charts of the last minutes: lines over time, drawn as SVG from the numbers.

import { el, svg } from './dom.js';

const LEFT = 46;
const RIGHT = 6;
const TOP = 6;
const BOTTOM = 18;

/** The smallest of 1, 2, 5, 10, 20 … that is not below `value`. */
export function niceMax(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export class Chart {
  #points = [];
  #series;
  #format;
  #scale;
  #spanMs;
  #width = 0;

  /**
   * `series`: `{name, key, className}` for each line; `format(value)` writes a value with its unit, `scale(value)` one
   * beside the axis.
   * `least`: the scale never ends below it.
   */
  constructor({ title, hint, series, format, scale = format, spanMs, least = 1 }) {
    this.#series = series;
    this.#format = format;
    this.#scale = scale;
    this.#spanMs = spanMs;
    this.least = least;
    this.value = el('p', { class: 'value', text: '–' });
    this.picture = svg('svg', { class: 'chart', role: 'img', height: '120' });
    const legend = el('ul', { class: 'legend' });
    this.legend = new Map(series.map(({ key, name, className }) => {
      const value = el('b', { text: '–' });
      legend.append(el('li', { class: className }, el('span', { text: name }), value));
      return [key, value];
    }));
    this.root = el('section', { class: 'tile' }, el('h2', { text: title, title: hint }), this.value, series.length > 1 ? legend : null, this.picture);
    this.title = title;
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = contentRect.width;
      this.draw(Date.now());
    }).observe(this.root);
  }

  /** Adds what was measured at `at`; a value that is not known is null. */
  add(at, values) {
    this.#points.push({ at, values });
    while (this.#points[0].at < at - this.#spanMs - 2000) this.#points.shift();
    const first = values[this.#series[0].key];
    this.value.textContent = this.#show(first);
    for (const [key, element] of this.legend) element.textContent = this.#show(values[key]);
    this.draw(at);
  }

  #show(value) { return value === null || value === undefined ? '–' : this.#format(value); }

  draw(now) {
    if (this.#width < 60) return;
    const width = this.#width;
    const height = 120;
    const values = this.#points.flatMap((point) => this.#series.map(({ key }) => point.values[key])).filter((value) => value !== null && value !== undefined);
    const max = niceMax(Math.max(this.least, ...values));
    // A minute at first, so that there is something to see, and a minute more each minute.
    const age = now - (this.#points[0]?.at ?? now);
    const minutes = Math.min(Math.ceil(age / 60_000) || 1, this.#spanMs / 60_000);
    const x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (now - at) / (minutes * 60_000));
    const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - value / max);
    const parts = [0, 0.5, 1].flatMap((share) => [
      svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(max * share), y2: y(max * share) }),
      svg('text', { class: 'axis', x: LEFT - 6, y: y(max * share) + 3.5, 'text-anchor': 'end' }, this.#scale(max * share)),
    ]);
    parts.push(
      svg('text', { class: 'axis', x: LEFT, y: height - 4 }, `${minutes} min ago`),
      svg('text', { class: 'axis', x: width - RIGHT, y: height - 4, 'text-anchor': 'end' }, 'now'));
    for (const { key, className } of [...this.#series].reverse()) {
      parts.push(svg('path', { class: `line ${className}`, d: this.#path(key, x, y, now) }));
    }
    this.picture.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.picture.setAttribute('width', width);
    this.picture.setAttribute('aria-label', `${this.title}: ${this.#series.map(({ key, name }) => `${name} ${this.legend.get(key).textContent}`).join(', ')}`);
    this.picture.replaceChildren(...parts);
  }

  #path(key, x, y, now) {
    let path = '';
    let isDown = false;
    for (const { at, values } of this.#points) {
      const value = values[key];
      if (value === null || value === undefined || at < now - this.#spanMs) {
        isDown = false;
        continue;
      }
      path += `${isDown ? 'L' : 'M'}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      // A single point is a dot.
      if (!isDown) path += 'h.01';
      isDown = true;
    }
    return path;
  }
}

/** Bars of named counts, longest first. */
export function bars(root, counts, className) {
  const rows = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const max = Math.max(1, ...rows.map(([, count]) => count));
  root.replaceChildren(...rows.slice(0, 6).map(([name, count]) => {
    const picture = svg('svg', { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true', class: `bar ${className}` },
      svg('rect', { width: (100 * count) / max, height: 6 }));
    return el('li', {}, el('span', { text: name }), picture, el('b', { text: count }));
  }));
}
