// The parts of the page that are text, and what happens when something is chosen or searched.

const totals = report.totals;
const total = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

// ---- the head ----

function head() {
  const began = new Date(report.began).toISOString().replace("T", " ").slice(0, 19);
  $("title").textContent = plain(report.title || "concil");
  $("when").textContent = `${began} UTC, ${duration(report.milliseconds)}, ${plain(`concil ${report.concil}`)}`;
  const bad = totals.images.failed || (total(totals.images) ? 0 : totals.blobs.failed);
  const what = totals.images.failed ? several(bad, "image") : several(bad, "blob");
  const end = report.complete ? "" : "Ended before it was through";
  $("verdict").textContent = [end, bad ? `${what} failed` : ""].filter(Boolean).join("; ")
    || "Complete, nothing failed";
  $("verdict").className = bad ? "bad" : report.complete ? "" : "cut";
}

function headTotals() {
  const { images: image, blobs, bytes } = totals;
  const moved = report.throughput.bytes.reduce((a, b) => a + b, 0);
  const ended = total(image);
  const left = Math.max(0, totals.expected - ended);
  const facts = [
    ["Images copied", count(image.done), left ? `${count(left)} not begun or unfinished` : ""],
    ["Images up to date", count(image.present)],
    ["Images failed", count(image.failed), "", image.failed],
    ["Blobs sent", count(blobs.done), size(bytes.done)],
    ["Blobs mounted", count(blobs.mounted), blobs.mounted ? `${size(bytes.mounted)} not sent` : ""],
    ["Already there", count(blobs.present)],
    ["Blobs failed", count(blobs.failed), "", blobs.failed],
    ["Tried again", count(totals.losses), totals.losses ? "after a loss" : ""],
    ["Mean throughput", `${size((moved * 1000) / RUN)}/s`, `${size(moved)} moved`],
  ];
  $("totals").append(...facts.map(([name, value, small, bad]) => {
    const box = make("div", bad ? "bad" : "");
    const text = make("dd", "", value);
    if (small) text.append(make("small", "", small));
    box.append(make("dt", "", name), text);
    return box;
  }));
}

// ---- failed and slowest ----

const MOST_LISTED = 100;

function failures() {
  const bad = [...images, ...transfers].filter((one) => one.kind === "failed");
  $("failures").hidden = bad.length === 0;
  $("failed").append(...bad.slice(0, MOST_LISTED).map((one) => {
    const item = make("li");
    const isImage = "source" in one;
    const name = isImage ? one.source : `blob ${one.short}`;
    item.append(make("div", "what", one.target ? `${name} \u2192 ${one.target}` : name));
    item.append(make("div", "why", one.why || "no reason was given"));
    return item;
  }));
  const more = bad.length - MOST_LISTED;
  $("failed-more").hidden = more <= 0;
  $("failed-more").textContent = `${several(more, "more failure")}: choose \u201cfailed\u201d below and look at the tables.`;
}

function slowest() {
  const slow = transfers.filter((one) => one.took !== null).sort((a, b) => b.took - a.took).slice(0, 10);
  $("slowest").append(...slow.map((one) => {
    const item = make("li");
    const button = make("button");
    const track = make("span", "track wide");
    const share = make("span", "share");
    const rate = rateOf(one);
    button.type = "button";
    share.style.width = `${(100 * one.took) / Math.max(1, slow[0].took)}%`;
    track.append(share);
    button.append(
      make("span", "", duration(one.took)),
      track,
      make("span", "", size(one.total)),
      make("span", "wide", rate === null ? "" : `${size(rate)}/s`),
      make("span", "clip", `${one.short} \u2192 ${one.target}`),
    );
    button.addEventListener("click", () => {
      choose(one);
      pointing.zoomTo(one);
      timeline.canvas.scrollIntoView({ block: "nearest" });
    });
    item.append(button);
    return item;
  }));
  if (!slow.length) $("slowest").append(make("li", "empty", "Nothing had to be moved."));
}

// ---- details ----

function detailsOf(one) {
  const at = (ms) => (ms === null ? null : `${duration(ms)} after the start`);
  const rate = rateOf(one);
  const losses = one.losses.map((loss) => (
    `${at(loss.at)}, for ${duration(loss.until - loss.at)}: ${loss.why}`
  ));
  const helpers = one.helped.map((part) => lanes[part.lane]).join(", ");
  const pairs = [
    ["Blob", one.digest, true],
    ["To", one.target],
    ["State", one.why ? `${stateOf(one)}: ${one.why}` : stateOf(one)],
    ["Size", one.total === null ? size(one.position) : `${size(one.total)} (${count(one.total)} bytes)`],
    ["Resumed", one.resumed ? `${size(one.resumed)} were there from an earlier run` : ""],
    ["Waited", one.waited >= 0.1 ? duration(one.waited) : ""],
    ["Began", at(one.started)],
    ["Took", one.took === null ? "" : `${duration(one.took)}${rate === null ? "" : `, ${size(rate)}/s`}`],
    ["Ended", one.instant ? at(one.end) : ""],
    ["Worker", lanes[one.lane]],
    ["Helped by", helpers],
    ["Tried again", one.lost ? several(one.lost, "time") : ""],
    ...losses.map((text) => ["", text]),
  ];
  return described(pairs);
}

function choose(one) {
  timeline.chosen = one;
  transferTable.choose(one);
  $("details").replaceChildren(...(one ? [detailsOf(one)] : []));
}

function chooseImage(one) {
  imageTable.choose(one);
  $("image-details").replaceChildren(described([
    ["Source", one.source],
    ["Target", one.target],
    ["Result", one.why ? `${KINDS[one.kind].image}: ${one.why}` : KINDS[one.kind].image],
    ["Sent", size(one.sent)],
    ["Took", one.took === null ? "" : duration(one.took)],
    ["Ended", `${duration(one.ended)} after the start`],
  ]));
}

// ---- tables ----

const transferColumns = [
  { name: "Blob", of: (one) => one.short, whole: (one) => one.digest, by: (one) => one.digest, mono: true, width: "110px", narrow: "58px" },
  { name: "To", of: (one) => one.target, by: (one) => one.target, tail: true, wide: true, width: "minmax(120px, 1fr)" },
  { name: "State", of: stateOf, by: stateOf, state: true, width: "112px", narrow: "minmax(0, 1fr)" },
  { name: "Size", of: (one) => size(one.total), by: (one) => one.total, number: true, width: "84px", narrow: "70px" },
  { name: "Began", of: (one) => duration(one.begin), by: (one) => one.begin, number: true, wide: true, width: "92px" },
  { name: "Waited", of: (one) => duration(one.waited), by: (one) => one.waited, number: true, wide: true, width: "92px" },
  { name: "Took", of: (one) => duration(one.took), by: (one) => one.took, number: true, width: "92px", narrow: "56px" },
  { name: "Rate", of: (one) => (rateOf(one) === null ? "" : `${size(rateOf(one))}/s`), by: rateOf, number: true, wide: true, width: "100px" },
  { name: "Again", of: (one) => (one.lost ? String(one.lost) : ""), by: (one) => one.lost, number: true, wide: true, width: "56px" },
  { name: "Worker", of: (one) => lanes[one.lane] ?? "", by: (one) => lanes[one.lane] ?? null, wide: true, width: "96px" },
];
const imageColumns = [
  { name: "Source", of: (one) => one.source, by: (one) => one.source, tail: true, width: "minmax(120px, 1fr)", narrow: "minmax(0, 1fr)" },
  { name: "Target", of: (one) => one.target, by: (one) => one.target, tail: true, wide: true, width: "minmax(120px, 1fr)" },
  { name: "Result", of: (one) => KINDS[one.kind].image, by: (one) => KINDS[one.kind].image, state: true, width: "112px", narrow: "92px" },
  { name: "Sent", of: (one) => size(one.sent), by: (one) => one.sent, number: true, wide: true, width: "84px" },
  { name: "Took", of: (one) => duration(one.took), by: (one) => one.took, number: true, width: "92px", narrow: "66px" },
];

const transferTable = table($("transfers"), {
  label: "Transfers", items: transfers, columns: transferColumns,
  sort: { by: transferColumns[4], down: false },
  choose(one) {
    choose(one);
    pointing.zoomTo(one);
  },
});
const imageTable = table($("images"), {
  label: "Images", items: images, columns: imageColumns,
  sort: { by: imageColumns[0], down: false },
  choose: chooseImage,
});

// ---- search and legend ----

// The sign of a kind as it is drawn in the timeline.
function swatch(kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shapes = {
    done: "M1 4h14v8h-14z",
    mounted: "M8 2l6 6l-6 6l-6 -6z",
    present: "M7 2h2v12h-2z",
    failed: "M3 1l5 5l5 -5l2 2l-5 5l5 5l-2 2l-5 -5l-5 5l-2 -2l5 -5l-5 -5z",
    unfinished: "M1 4h4v8h-4zM6.5 4h3v8h-3zM11 4h2v8h-2z",
    waiting: "M3 7h2v2h-2zM7 7h2v2h-2zM11 7h2v2h-2z",
    retried: "M1 12l6 -8h3l-6 8zM7 12l6 -8h3l-6 8z",
  };
  const colours = { done: "sent", waiting: "muted", retried: "retry" };
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", shapes[kind]);
  path.setAttribute("fill", `var(--${colours[kind] ?? kind})`);
  svg.append(path);
  return svg;
}

function legend() {
  const counts = { retried: transfers.filter((one) => one.lost).length };
  for (const one of [...transfers, ...images]) counts[one.kind] = (counts[one.kind] ?? 0) + 1;
  const names = { ...Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, KINDS[kind].one])), retried: "tried again" };
  const kinds = Object.keys(names).filter((kind) => counts[kind]);
  $("legend").append(...kinds.map((kind) => {
    const button = make("button");
    button.type = "button";
    button.dataset.kind = kind;
    button.setAttribute("aria-pressed", "false");
    button.append(swatch(kind), make("span", "", names[kind]));
    button.addEventListener("click", () => {
      if (!wanted.kinds.delete(kind)) wanted.kinds.add(kind);
      button.setAttribute("aria-pressed", String(wanted.kinds.has(kind)));
      refilter();
    });
    return button;
  }));
}

function refilter() {
  const words = $("search").value.toLowerCase().match(/"[^"]*"?|[^\s"]+/g) ?? [];
  wanted.words = words.map((word) => word.replaceAll('"', "")).filter(Boolean);
  transferTable.refresh();
  imageTable.refresh();
  timeline.redraw();
  const of = (part, whole) => (part === whole ? count(whole) : `${count(part)} of ${count(whole)}`);
  $("image-count").textContent = of(imageTable.length, images.length);
  $("transfer-count").textContent = of(transferTable.length, transfers.length);
  $("found").textContent = filtered()
    ? `${several(imageTable.length, "image")}, ${several(transferTable.length, "transfer")}`
    : "";
}

let pending = 0;
$("search").addEventListener("input", () => {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(refilter);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && document.activeElement !== $("search")) {
    event.preventDefault();
    $("search").focus();
  }
});

function footer() {
  const notes = [];
  const left = (n, one) => `${several(n, one)} of this run ${n === 1 ? "is" : "are"} not listed one by one: those are listed that failed, were tried again or took longest. Totals and throughput have all.`;
  if (totals.transfersLeftOut) notes.push(left(totals.transfersLeftOut, "transfer"));
  if (totals.imagesLeftOut) notes.push(left(totals.imagesLeftOut, "image"));
  notes.push("A bar begins when a worker takes a blob and ends when the blob is verified at its destination; throughput counts bytes that had to be sent again each time.");
  $("footer").textContent = notes.join(" ");
}

head();
headTotals();
failures();
legend();
slowest();
refilter();
footer();
timeline.recolour();
timeline.draw();
new ResizeObserver(() => timeline.redraw()).observe($("stage"));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.recolour());
