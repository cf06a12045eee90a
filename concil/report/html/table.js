// A table of any length that creates elements for the visible rows only.

// items: an array; after a change of it, `update` shows what is new.
// columns: {name, of: item => text, by: item => sort key, width, narrow: width on a small screen,
// wide: hidden on a small screen, number, mono, state: with its symbol, tail: cut off in front}
function table(parent, { label, items, columns, choose: chosenBy, sort, isShown = matches, none = "None." }) {
  const frame = make("div", "table");
  const names = make("div", "line names");
  const scroll = make("div", "scroll");
  const rows = make("div", "rows");
  const narrow = window.matchMedia("(max-width: 720px)");
  let ordered = [...items]; // all items, as they were sorted last
  let shown = items;
  let isStale = false; // out of sight while items changed
  let order = sort;
  let active = 0; // index of the row with keyboard focus
  let chosen = null;
  let drawn = { first: -1, last: -1 };

  frame.setAttribute("role", "grid");
  frame.setAttribute("aria-label", label);
  names.setAttribute("role", "row");
  scroll.setAttribute("role", "rowgroup");
  rows.setAttribute("role", "presentation");
  names.append(...columns.map((column) => {
    const cell = make("div", classOf(column, "cell"));
    const button = make("button", "", column.name);
    button.type = "button";
    cell.setAttribute("role", "columnheader");
    button.addEventListener("click", () => {
      const same = order.by === column;
      order = { by: column, down: same ? !order.down : Boolean(column.number) };
      refresh();
    });
    cell.append(button);
    return cell;
  }));
  scroll.append(rows);
  frame.append(names, scroll);
  parent.append(frame);

  function classOf(column, base) {
    return [base, column.number && "number", column.wide && "wide", column.mono && "mono", column.tail && "tail"]
      .filter(Boolean).join(" ");
  }

  const rowHeight = () => (narrow.matches ? 36 : 30);

  function layout() {
    const seen = columns.filter((column) => !(column.wide && narrow.matches));
    frame.style.setProperty("--columns", seen.map((column) => (
      (narrow.matches && column.narrow) || column.width
    )).join(" "));
  }

  function sorted() {
    const { by, down } = order;
    const keys = new Map(items.map((item) => [item, by.by(item)]));
    const compare = (a, b) => {
      const [p, q] = [keys.get(a), keys.get(b)];
      // Items without a value come last in either direction.
      if (p === null || q === null) return (p === null) - (q === null) || a.n - b.n;
      const difference = typeof p === "string" ? inOrder(p, q) : p - q;
      return (down ? -difference : difference) || a.n - b.n;
    };
    // What is nearly in order already is sorted in a single pass.
    const known = new Set(ordered);
    const present = new Set(items);
    ordered = [...ordered.filter((item) => present.has(item)), ...items.filter((item) => !known.has(item))];
    ordered.sort(compare);
    return ordered.filter(isShown);
  }

  // Shows changed items where they belong, without moving the view. Does nothing out of sight.
  function update() {
    const { top, bottom } = frame.getBoundingClientRect();
    isStale = bottom < -200 || top > window.innerHeight + 200;
    if (isStale && shown.length) return;
    const item = shown[active];
    shown = sorted();
    active = Math.max(0, shown.indexOf(item));
    frame.setAttribute("aria-rowcount", String(shown.length + 1));
    rows.style.height = `${shown.length * rowHeight()}px`;
    redraw();
  }

  function refresh() {
    shown = sorted();
    columns.forEach((column, n) => {
      const is = column === order.by ? (order.down ? "descending" : "ascending") : "none";
      names.children[n].setAttribute("aria-sort", is);
    });
    active = Math.max(0, shown.indexOf(chosen));
    layout();
    frame.setAttribute("aria-rowcount", String(shown.length + 1));
    rows.style.height = `${shown.length * rowHeight()}px`;
    scroll.scrollTop = 0;
    redraw();
  }

  function redraw() {
    drawn = { first: -1, last: -1 };
    paint();
  }

  function paint() {
    const tall = rowHeight();
    const first = Math.max(0, Math.floor(scroll.scrollTop / tall) - 6);
    const last = Math.min(shown.length, Math.ceil((scroll.scrollTop + 480) / tall) + 6);
    if (first === drawn.first && last === drawn.last) return;
    drawn = { first, last };
    const focused = rows.contains(document.activeElement);
    const lines = shown.slice(first, last).map((item, n) => lineOf(item, first + n, tall));
    if (!shown.length) lines.push(make("div", "empty", items.length ? "No matches." : none));
    rows.replaceChildren(...lines);
    if (focused) lineAt(active)?.focus({ preventScroll: true });
  }

  function lineOf(item, place, tall) {
    const line = make("div", "line");
    line.style.top = `${place * tall}px`;
    line.setAttribute("role", "row");
    line.setAttribute("aria-rowindex", String(place + 2));
    line.setAttribute("aria-selected", String(item === chosen));
    line.tabIndex = place === active ? 0 : -1;
    line.dataset.place = place;
    for (const column of columns) {
      const cell = make("div", classOf(column, "cell"));
      const text = column.of(item);
      cell.setAttribute("role", "gridcell");
      if (column.state) {
        const state = make("span", "state");
        state.append(swatch(item.kind), make("span", "", text));
        cell.append(state);
      } else if (column.tail) {
        // Cut off in front: names below one registry differ at their ends.
        const whole = make("bdi", "", text);
        whole.dir = "ltr";
        cell.append(whole);
      } else {
        cell.textContent = text;
      }
      cell.title = column.whole ? column.whole(item) : text;
      line.append(cell);
    }
    return line;
  }

  const lineAt = (place) => rows.querySelector(`[data-place="${place}"]`);

  function goTo(place) {
    active = Math.min(shown.length - 1, Math.max(0, place));
    const tall = rowHeight();
    const top = active * tall;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    if (top + tall > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + tall - scroll.clientHeight;
    redraw();
    lineAt(active)?.focus({ preventScroll: true });
  }

  scroll.addEventListener("scroll", paint, { passive: true });
  window.addEventListener("scroll", () => { if (isStale) update(); }, { passive: true });
  narrow.addEventListener("change", refresh);
  rows.addEventListener("click", (event) => {
    const line = event.target.closest(".line");
    if (!line) return;
    active = Number(line.dataset.place);
    chosenBy(shown[active]);
  });
  rows.addEventListener("keydown", (event) => {
    const page = Math.floor(scroll.clientHeight / rowHeight()) - 1;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -shown.length, End: shown.length };
    if (event.key in steps) goTo(active + steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") chosenBy(shown[active]);
    else return;
    event.preventDefault();
  });

  return {
    refresh,
    update,
    get length() { return filtered() ? shown.length : items.length; },
    choose(item) {
      chosen = item;
      const place = shown.indexOf(item);
      if (place >= 0) active = place;
      redraw();
    },
  };
}
