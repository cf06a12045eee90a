// Navigation in the timeline: zoom, pan, hover and select, by pointer, touch and keyboard.

const pointing = (() => {
  const { canvas, tip, STRIP } = timeline;
  const closest = () => Math.min(RUN, 5); // milliseconds across the whole width
  const fingers = new Map(); // positions of the pointers that are down
  let drag = null;

  function show(from, to) {
    const span = Math.min(RUN, Math.max(closest(), to - from));
    const middle = (from + to) / 2;
    const left = Math.min(Math.max(0, middle - span / 2), RUN - span);
    timeline.view = { from: left, to: left + span };
  }

  function zoom(factor, at) {
    const { from, to } = timeline.view;
    const centre = at ?? (from + to) / 2;
    const span = Math.min(RUN, Math.max(closest(), (to - from) * factor));
    const left = centre - ((centre - from) / (to - from)) * span;
    show(left, left + span);
  }

  function pan(ms) {
    const { from, to } = timeline.view;
    show(from + ms, to + ms);
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  // The transfer at a position or within a few pixels of it; only those that match a filter.
  function under({ x, y }) {
    const row = timeline.rows[Math.floor((y - timeline.TOP) / timeline.rowHeight)];
    if (y < timeline.TOP || !row) return null;
    let best = null;
    let nearest = 7;
    for (const transfer of row) {
      if (filtered() && !matches(transfer)) continue;
      const [from, to] = [timeline.x(transfer.begin), timeline.x(transfer.end)];
      const away = x < from ? from - x : Math.max(0, x - to);
      if (away < nearest || (away === nearest && best && transfer.end - transfer.begin < best.end - best.begin)) {
        [best, nearest] = [transfer, away];
      }
    }
    return best;
  }

  function hint(transfer, at) {
    timeline.hovered = transfer;
    if (!transfer) {
      tip.hidden = true;
      return;
    }
    const took = transfer.took === null ? `at ${duration(transfer.end)}` : duration(transfer.took);
    const waited = transfer.waited >= 1 ? `, waited ${duration(transfer.waited)}` : "";
    const again = transfer.retries ? `, retried ${several(transfer.retries, "time")}` : "";
    const lines = [
      make("div", "mono", transfer.short),
      make("div", "", `${stateOf(transfer)}, ${size(transfer.total)}, ${took}${waited}${again}`),
      make("div", "", transfer.target),
    ];
    const detail = transfer.detail || (transfer.interruptions.length ? transfer.interruptions[transfer.interruptions.length - 1].detail : "");
    // The end of a message has its reason; the details show all of it.
    const short = detail.length > 90 ? `\u2026 ${detail.slice(-88).replace(/^\S*\s/, "")}` : detail;
    if (detail) lines.push(make("div", "detail", short));
    float(lines, at);
  }

  // Shows the values of the curves at a position.
  function hintCurves(at) {
    const [from, to] = [timeline.timeAt(at.x), timeline.timeAt(at.x + 1)];
    timeline.hovered = null;
    if (from < 0 || from > RUN) {
      tip.hidden = true;
      return;
    }
    float([make("div", "", duration(from)), make("div", "", [
      `${size(throughput.between(from, to))}/s`,
      `${count(queue.between(from, to))} waiting`,
    ].join(", "))], at);
  }

  function float(lines, at) {
    const stage = canvas.parentElement;
    tip.replaceChildren(...lines);
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(at.x + 14, stage.clientWidth - tip.offsetWidth - 6))}px`;
    const below = at.y + 18 + tip.offsetHeight < stage.clientHeight;
    tip.style.top = `${below ? at.y + 18 : Math.max(4, at.y - tip.offsetHeight - 12)}px`;
  }

  function pinched() {
    const [a, b] = [...fingers.values()];
    return { apart: Math.max(10, Math.abs(a.x - b.x)), middle: (a.x + b.x) / 2 };
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    const at = place(event);
    fingers.set(event.pointerId, at);
    drag = { at, last: at, moved: false, brush: at.y < STRIP && fingers.size === 1 };
    if (fingers.size === 2) drag.pinch = pinched();
  });

  canvas.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (!fingers.has(event.pointerId)) {
      if (at.y < timeline.TOP) hintCurves(at);
      else hint(under(at), at);
      return;
    }
    fingers.set(event.pointerId, at);
    if (drag.pinch && fingers.size === 2) {
      const now = pinched();
      zoom(drag.pinch.apart / now.apart, timeline.timeAt(now.middle));
      drag.pinch = now;
      drag.moved = true;
      return;
    }
    if (!drag.moved && Math.abs(at.x - drag.at.x) < 4) return;
    drag.moved = true;
    hint(null);
    if (drag.brush) {
      const [a, b] = [timeline.timeAt(drag.at.x), timeline.timeAt(at.x)];
      timeline.band = { from: Math.max(0, Math.min(a, b)), to: Math.min(RUN, Math.max(a, b)) };
    } else {
      pan(timeline.timeAt(drag.last.x) - timeline.timeAt(at.x));
      drag.last = at;
    }
  });

  function lift(event) {
    if (!fingers.delete(event.pointerId)) return;
    const at = place(event);
    timeline.band = null;
    if (event.type === "pointerup" && drag.moved && drag.brush) {
      const [a, b] = [timeline.timeAt(drag.at.x), timeline.timeAt(at.x)].sort((p, q) => p - q);
      show(a, b);
    } else if (event.type === "pointerup" && !drag.moved) {
      choose(under(at));
      if (event.pointerType === "touch") hint(null);
    }
  }

  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => hint(null));
  canvas.addEventListener("dblclick", (event) => zoom(0.25, timeline.timeAt(place(event).x)));
  canvas.addEventListener("wheel", (event) => {
    // Without a modifier the wheel scrolls the page.
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(Math.exp(event.deltaY * 0.0025), timeline.timeAt(place(event).x));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      pan(timeline.timeAt(event.deltaX) - timeline.timeAt(0));
    }
  }, { passive: false });

  // ---- keys ----

  // The next transfer in a direction: in its row, or at about the same time in another row.
  function neighbour(key) {
    const open = (transfer) => !filtered() || matches(transfer);
    const now = timeline.chosen;
    if (!now || now.lane < 0) {
      const inside = ({ begin }) => begin >= timeline.view.from && begin <= timeline.view.to;
      return timeline.rows.flat().find((transfer) => open(transfer) && inside(transfer))
        ?? transfers.find((transfer) => transfer.lane >= 0 && transfer.begin !== null && open(transfer));
    }
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const row = timeline.rows[timeline.rowOf[now.lane]].filter((transfer) => transfer === now || open(transfer));
      return row[row.indexOf(now) + (key === "ArrowRight" ? 1 : -1)];
    }
    const step = key === "ArrowDown" ? 1 : -1;
    for (let n = timeline.rowOf[now.lane] + step; timeline.rows[n]; n += step) {
      const near = timeline.rows[n].filter(open);
      if (near.length) {
        return near.reduce((a, b) => (
          Math.abs(b.begin - now.begin) < Math.abs(a.begin - now.begin) ? b : a
        ));
      }
    }
    return undefined;
  }

  function reveal(transfer) {
    const { from, to } = timeline.view;
    if (transfer.begin < from || transfer.begin > to) pan((transfer.begin + transfer.end - from - to) / 2);
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) {
      const transfer = neighbour(event.key);
      if (transfer) {
        reveal(transfer);
        choose(transfer);
      }
    } else if (event.key === "+" || event.key === "=") zoom(0.5, timeline.chosen?.begin);
    else if (event.key === "-") zoom(2, timeline.chosen?.begin);
    else if (event.key === "0") show(0, RUN);
    else if (event.key === "Escape") choose(null);
    else return;
    event.preventDefault();
  });

  $("zoom-in").addEventListener("click", () => zoom(0.5, timeline.chosen?.begin));
  $("zoom-out").addEventListener("click", () => zoom(2, timeline.chosen?.begin));
  $("zoom-all").addEventListener("click", () => show(0, RUN));

  // Zooms to a transfer and some of its surroundings.
  function zoomTo(transfer) {
    if (transfer.begin === null) return;
    const room = Math.max((transfer.end - transfer.begin) * 2, (timeline.view.to - timeline.view.from) / 8, 20);
    show(transfer.begin - room, transfer.end + room);
  }

  return { zoomTo, show };
})();
