// Formats text and makes elements. Data becomes text nodes only, never markup.

const $ = (id) => document.getElementById(id);

// Characters that could move, hide or reorder their neighbours are shown by code point.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}]/gu;

function plain(text) {
  return String(text).replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function size(bytes) {
  if (bytes === null) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1023.95 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return unit ? `${bytes.toFixed(1)} ${units[unit]}` : `${Math.round(bytes)} B`;
}

function duration(ms) {
  if (ms === null) return "";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${two(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
}

// v9 sorts before v10. Created once, because that is most of the cost of a comparison.
const inOrder = new Intl.Collator("en", { numeric: true }).compare;

const count = (n) => n.toLocaleString("en-US");

const several = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

function shortDigest(digest) {
  const match = /^(sha256|sha512):([0-9a-f]{12})/.exec(digest);
  return match ? match[2] : plain(digest);
}

function described(pairs) {
  const list = make("dl");
  for (const [name, value, mono] of pairs) {
    if (value === "" || value === null || value === undefined) continue;
    list.append(make("dt", "", name), make("dd", mono ? "mono" : "", value));
  }
  return list;
}
