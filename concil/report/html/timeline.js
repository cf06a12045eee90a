// The timeline: curves on top, then a row for each worker, on one canvas.

const timeline = (() => {
  const canvas = $("canvas");
  const tip = $("tip");
  const pen = canvas.getContext("2d");
  const STRIP = 74; // height of the throughput curve in pixels
  const QUEUE = 30; // height of the queue curve in pixels
  const AXIS = 20;
  let queued = false;
  let TOP = 0;
  let order = []; // lanes by row
  let rowOf = []; // rows by lane
  let rowHeight = 0;
  let height = 0;
  let rows = []; // the transfers of each row by time
  let helping = []; // the workers' help with transfers of other rows

  let width = 0; // CSS pixels
  let gutter = 0;
  let view = { from: 0, to: RUN };
  let chosen = null;
  let hovered = null;
  let band = null; // the range being selected: {from, to} in milliseconds
  let colours = {};
  let hatches = {};
  let due = 0;

  function arrange() {
    queued = report.queueDepth.maximum.some((n) => n > 0);
    TOP = STRIP + (queued ? QUEUE : 0) + AXIS;
    order = lanes.map((name, n) => n).sort((a, b) => inOrder(lanes[a], lanes[b]));
    rowOf = [];
    order.forEach((lane, row) => { rowOf[lane] = row; });
    rowHeight = Math.max(9, Math.min(24, Math.floor(520 / Math.max(1, lanes.length))));
    height = TOP + Math.max(1, lanes.length) * rowHeight + 6;
    rows = order.map(() => []);
    helping = order.map(() => []);
    for (const transfer of transfers) {
      if (transfer.lane >= 0 && transfer.begin !== null) rows[rowOf[transfer.lane]].push(transfer);
      for (const part of transfer.helpers) helping[rowOf[part.lane]].push({ transfer, ...part });
    }
    for (const row of rows) row.sort((a, b) => a.begin - b.begin);
  }
  arrange();

  const x = (ms) => gutter + ((ms - view.from) / (view.to - view.from)) * (width - gutter - 8);
  const timeAt = (px) => view.from + ((px - gutter) / (width - gutter - 8)) * (view.to - view.from);

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["surface", "ink", "muted", "line", "faint", "sent", "helper", "retry", "failed",
      "mounted", "present", "running", "unfinished", "rate", "rate-fill", "queue", "queue-fill"];
    colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    colours.done = colours.sent;
    hatches = {
      retry: hatch(colours.retry, [[0, 6, 6, 0]]),
      failed: hatch(colours.failed, [[0, 6, 6, 0], [0, 0, 6, 6]]),
      unfinished: hatch(colours.unfinished, [[3, 0, 3, 6]]),
    };
  }

  // Lines in the colour of the surface, so that states differ without colours, too.
  function hatch(colour, strokes) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const on = tile.getContext("2d");
    on.fillStyle = colour;
    on.fillRect(0, 0, 6, 6);
    on.strokeStyle = colours.surface;
    on.lineWidth = 1.2;
    for (const [x1, y1, x2, y2] of strokes) {
      on.beginPath();
      on.moveTo(x1, y1);
      on.lineTo(x2, y2);
      on.stroke();
    }
    return pen.createPattern(tile, "repeat");
  }

  function fillOf(kind) {
    return hatches[kind] ?? colours[kind];
  }

  // ---- drawing ----

  function draw() {
    due = 0;
    const ratio = window.devicePixelRatio || 1;
    const wide = canvas.parentElement.clientWidth;
    const isResized = canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(height * ratio);
    if (wide !== width || isResized) {
      width = wide;
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
      gutter = width < 560 ? 34 : 84;
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = colours.surface;
    pen.fillRect(0, 0, width, height);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    drawCurve(0, STRIP, throughput);
    if (queued) drawCurve(STRIP, QUEUE, queue);
    drawAxis();
    drawRows();
    drawBand();
  }

  // One value for each pixel: the mean rate or the maximum of its time.
  function drawCurve(top, tall, curve) {
    const left = Math.round(gutter);
    const right = width - 8;
    const values = [];
    for (let px = left; px < right; px += 1) values.push(curve.between(timeAt(px), timeAt(px + 1)));
    const most = curve.nice(Math.max(0, ...values));
    const base = top + tall - 4;
    const scale = (tall - 14) / most;
    pen.beginPath();
    pen.moveTo(left, base);
    values.forEach((value, n) => pen.lineTo(left + n, base - value * scale));
    pen.lineTo(right, base);
    pen.closePath();
    pen.fillStyle = colours[`${curve.colour}-fill`];
    pen.fill();
    pen.beginPath();
    values.forEach((value, n) => pen.lineTo(left + n, base - value * scale));
    pen.strokeStyle = colours[curve.colour];
    pen.lineWidth = 1.25;
    pen.stroke();
    pen.strokeStyle = colours.line;
    pen.lineWidth = 1;
    level(base + 0.5, left, right);
    label(curve.name(most), left + 3, top + 8);
  }

  function level(y, left, right) {
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(right, y);
    pen.stroke();
  }

  // Text over a curve is readable on a patch of the surface colour.
  function label(text, left, middle) {
    const wide = pen.measureText(text).width;
    pen.globalAlpha = 0.8;
    pen.fillStyle = colours.surface;
    pen.fillRect(left - 2, middle - 7, wide + 4, 14);
    pen.globalAlpha = 1;
    pen.fillStyle = colours.muted;
    pen.textAlign = "left";
    pen.fillText(text, left, middle);
  }

  function drawAxis() {
    const span = view.to - view.from;
    const ticks = Math.max(2, Math.floor((width - gutter) / 90));
    const raw = span / ticks;
    const unit = 10 ** Math.floor(Math.log10(raw));
    let step = [1, 2, 5, 10].find((n) => n * unit >= raw) * unit;
    if (raw > 1000) {
      const seconds = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
      step = (seconds.find((n) => n * 1000 >= raw) ?? Math.ceil(raw / 86_400_000) * 86_400) * 1000;
    }
    pen.fillStyle = colours.muted;
    pen.strokeStyle = colours.faint;
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const px = Math.round(x(at)) + 0.5;
      pen.beginPath();
      pen.moveTo(px, TOP - 4);
      pen.lineTo(px, height);
      pen.stroke();
      const text = clock(at, step);
      const half = pen.measureText(text).width / 2;
      pen.textAlign = "left";
      pen.fillText(text, Math.min(width - 2 * half - 2, Math.max(gutter, px - half)), TOP - AXIS / 2);
    }
  }

  // 0:45 if the steps are seconds or more, 12.5 s with as many digits as the steps need otherwise.
  function clock(ms, step) {
    if (step < 1000 || RUN < 60_000) {
      return ms === 0 ? "0" : `${(ms / 1000).toFixed(Math.max(0, -Math.floor(Math.log10(step / 1000))))} s`;
    }
    const two = (n) => String(n).padStart(2, "0");
    const seconds = Math.round(ms / 1000);
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor(seconds / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
  }

  function drawRows() {
    pen.strokeStyle = colours.faint;
    const step = rowHeight >= 12 ? 1 : Math.ceil(12 / rowHeight);
    order.forEach((lane, row) => {
      const y = TOP + row * rowHeight;
      level(y + 0.5, 0, width);
      if (row % step) return;
      pen.fillStyle = colours.muted;
      pen.textAlign = "right";
      const name = gutter < 60 ? lanes[lane].replace(/^worker /, "").slice(0, 4) : lanes[lane].slice(0, 13);
      pen.fillText(name, gutter - 6, y + rowHeight / 2);
    });
    pen.save();
    pen.beginPath();
    pen.rect(gutter - 5, TOP, width - gutter + 5, height - TOP);
    pen.clip();
    if (!lanes.length) label(report.nothing ?? "nothing had to be transferred", gutter + 4, TOP + rowHeight / 2);
    const some = filtered();
    rows.forEach((row, n) => {
      const y = TOP + n * rowHeight;
      if (some) drawRow(row, helping[n], y, (transfer) => !matches(transfer), 0.13);
      drawRow(row, helping[n], y, some ? matches : () => true, 1);
    });
    if (hovered && hovered !== chosen) drawLead(hovered);
    if (chosen) drawLead(chosen);
    pen.restore();
  }

  function drawRow(row, helped, y, shown, alpha) {
    pen.globalAlpha = alpha;
    const pad = rowHeight > 14 ? 3 : 1;
    const tall = rowHeight - 2 * pad;
    for (const part of helped) {
      if (!shown(part.transfer) || part.to < view.from || part.from > view.to) continue;
      const from = x(part.from);
      pen.fillStyle = colours.helper;
      pen.fillRect(from, y + pad + tall / 4, Math.max(1, x(part.to) - from), tall / 2);
    }
    // Marks that would cover the same pixels as the previous one are skipped.
    const taken = { done: -9, mounted: -9, present: -9, failed: -9, running: -9, unfinished: -9 };
    for (const transfer of row) {
      if (transfer.end < view.from || transfer.begin > view.to || !shown(transfer)) continue;
      const from = x(transfer.begin);
      if (transfer.instant) {
        if (from - taken[transfer.kind] < 0.7) continue;
        taken[transfer.kind] = from;
        mark(transfer, from, y + pad, tall);
        continue;
      }
      const to = Math.max(from + 1, x(transfer.end) - (rowHeight > 14 ? 0.5 : 0));
      if (!transfer.retries && to - taken[transfer.kind] < 0.7) continue;
      taken[transfer.kind] = to;
      bar(transfer, from, to, y + pad, tall);
    }
    pen.globalAlpha = 1;
  }

  // Present: an upright line. Mounted: a rhombus. Failed before it started: a cross.
  function mark(transfer, px, y, tall) {
    const half = Math.min(4.5, tall / 2);
    const middle = y + tall / 2;
    pen.fillStyle = pen.strokeStyle = colours[transfer.kind];
    if (transfer.kind === "present") {
      pen.fillRect(px - 0.75, y + tall * 0.15, 1.5, tall * 0.7);
      return;
    }
    if (transfer.kind === "failed") {
      cross(px, middle, half);
      return;
    }
    pen.beginPath();
    pen.moveTo(px, middle - half);
    pen.lineTo(px + half, middle);
    pen.lineTo(px, middle + half);
    pen.lineTo(px - half, middle);
    pen.closePath();
    pen.fill();
  }

  function cross(px, middle, half) {
    pen.strokeStyle = colours.failed;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.moveTo(px - half, middle - half);
    pen.lineTo(px + half, middle + half);
    pen.moveTo(px - half, middle + half);
    pen.lineTo(px + half, middle - half);
    pen.stroke();
    pen.lineWidth = 1;
  }

  function bar(transfer, from, to, y, tall) {
    pen.fillStyle = to - from > 3 ? fillOf(transfer.kind) : colours[transfer.kind];
    pen.fillRect(from, y, to - from, tall);
    for (const interruption of transfer.interruptions) {
      const px = x(interruption.at);
      pen.fillStyle = hatches.retry;
      pen.fillRect(px, y, Math.max(2, x(interruption.until) - px), tall);
      pen.fillStyle = colours.retry;
      pen.fillRect(px, y - 2, 2, tall + 4);
    }
    const left = Math.max(from, gutter) + 5;
    if (to - left > 60 && rowHeight > 14 && transfer.kind === "done" && !transfer.retries
      && pen.measureText(transfer.short).width < to - left - 5) {
      pen.fillStyle = colours.surface;
      pen.textAlign = "left";
      pen.fillText(transfer.short, left, y + tall / 2 + 0.5);
    }
    if (transfer.kind === "failed" && to - from > 3) {
      pen.fillStyle = colours.surface;
      pen.fillRect(to - 1, y, 8, tall);
      cross(to + 3, y + tall / 2, Math.min(4, tall / 2));
    }
  }

  // A frame around a transfer, and a dotted line for the time it waited.
  function drawLead(transfer) {
    if (transfer.lane < 0 || transfer.begin === null) return;
    const y = TOP + rowOf[transfer.lane] * rowHeight;
    const from = x(transfer.begin);
    pen.strokeStyle = colours.ink;
    pen.setLineDash([2, 3]);
    level(y + rowHeight / 2, x(transfer.queued), from);
    pen.setLineDash([]);
    pen.lineWidth = transfer === chosen ? 2 : 1;
    const wide = Math.max(transfer.instant ? 0 : 2, x(transfer.end) - from);
    const pad = transfer.instant ? 6 : 1;
    pen.strokeRect(from - pad, y + 1, wide + 2 * pad, rowHeight - 2);
    pen.lineWidth = 1;
  }

  function drawBand() {
    if (band) {
      pen.globalAlpha = 0.22;
      pen.fillStyle = colours.sent;
      pen.fillRect(x(band.from), 0, x(band.to) - x(band.from), height);
      pen.globalAlpha = 1;
    }
    if (view.from <= 0 && view.to >= RUN) return;
    // The position of the view in the whole run.
    const part = (ms) => gutter + (ms / RUN) * (width - gutter - 8);
    pen.fillStyle = colours.line;
    pen.fillRect(gutter, 0, width - gutter - 8, 3);
    pen.fillStyle = colours.ink;
    pen.fillRect(part(view.from), 0, Math.max(3, part(view.to) - part(view.from)), 3);
  }

  function redraw() {
    if (!due) due = requestAnimationFrame(draw);
  }

  return {
    canvas, tip, STRIP, x, timeAt, redraw, draw,
    get rows() { return rows; },
    get rowOf() { return rowOf; },
    get rowHeight() { return rowHeight; },
    get TOP() { return TOP; },
    // Shows what has changed: of the whole run if that was shown, else at the same time.
    update(before) {
      if (view.from <= 0 && view.to >= before) view = { from: 0, to: RUN };
      else view = { from: Math.min(view.from, RUN), to: Math.min(view.to, RUN) };
      if (view.to - view.from < 1) view = { from: 0, to: RUN };
      arrange();
      redraw();
    },
    get view() { return view; },
    set view(wanted) { view = wanted; redraw(); },
    get chosen() { return chosen; },
    set chosen(transfer) { chosen = transfer; redraw(); },
    set hovered(transfer) { if (hovered !== transfer) { hovered = transfer; redraw(); } },
    set band(span) { band = span; redraw(); },
    recolour() { readColours(); redraw(); },
  };
})();
