// Small ways to build and find elements. Text is always set as text, never as markup.

export const $ = (id) => document.getElementById(id);

// make("div.card", {title: "x"}, child, "text", …)
export function make(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = Number(count);
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 999.5) return `${unit === "B" || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(2)} TB`;
}

export function parameters(count) {
  if (!count) return null;
  if (typeof count === "string") return count;
  for (const [unit, size] of [["B", 1e9], ["M", 1e6], ["K", 1e3]]) {
    if (count >= size) return `${Number((count / size).toPrecision(3))}${unit} parameters`;
  }
  return `${count} parameters`;
}

export function span(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// A bar of a share between 0 and 1; parts stack.
export function meter(label, shares, title) {
  const bar = make("div.meter", { role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, title });
  const inner = make("div.parts");
  let sum = 0;
  for (const share of shares) {
    const part = make("i");
    part.style.width = `${Math.min(1, Math.max(0, share)) * 100}%`;
    sum += share;
    inner.append(part);
  }
  bar.setAttribute("aria-valuenow", Math.round(Math.min(1, sum) * 100));
  bar.append(inner);
  return bar;
}

let hiding;
export function toast(error) {
  const text = error.hint ? `${error.message} – ${error.hint}` : error.message;
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => ($("toast").hidden = true), 8000);
}
