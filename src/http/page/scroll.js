// Keeps the end of the conversation in view while it grows, unless the reader has gone elsewhere.

const NEAR_PX = 80;

export class Scroll {
  #scroller;
  #button;
  #sticks = true;
  #expected = 0;

  constructor(scroller, button) {
    this.#scroller = scroller;
    this.#button = button;
    scroller.addEventListener('scroll', () => this.#moved(), { passive: true });
    button.addEventListener('click', () => this.toEnd());
    new ResizeObserver(() => this.follow()).observe(scroller);
  }

  #distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  #moved() {
    // Growing text moves the end away; only a reader moves up.
    const isUp = this.#scroller.scrollTop < this.#expected - 2;
    const isNear = this.#distance() < NEAR_PX;
    if (isNear) this.#sticks = true;
    else if (isUp) this.#sticks = false;
    this.#expected = this.#scroller.scrollTop;
    this.#button.hidden = isNear;
  }

  follow() {
    if (this.#sticks) this.#jump();
    else this.#button.hidden = this.#distance() < NEAR_PX;
  }

  toEnd() {
    this.#sticks = true;
    this.#jump();
  }

  #jump() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#expected = this.#scroller.scrollTop;
    this.#button.hidden = true;
  }

  /** Changes what is above without moving what is in view. */
  keep(change) {
    const before = this.#distance();
    change();
    const { scrollHeight, clientHeight } = this.#scroller;
    this.#scroller.scrollTop = scrollHeight - clientHeight - before;
  }

  /** Changes what is in view; the reader stays at the end, or where they were. */
  keepPlace(change) {
    const top = this.#scroller.scrollTop;
    change();
    if (this.#sticks) this.#jump();
    else this.#scroller.scrollTop = top;
  }
}
