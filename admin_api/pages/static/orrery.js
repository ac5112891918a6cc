// What pages do beyond links and forms. Everything works without it, but by hand.
"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const body = document.body;

// ---- a form that was refused is shown under its page's address ----
if (body.dataset.here && body.dataset.here !== location.pathname + location.search) history.replaceState(null, "", body.dataset.here);

// ---- news: ask for the page again, and put its live parts in the place of ours ----
const pause = (page) => Number(page.dataset.poll || 0) * 1000;
let every = pause(body);
const seen = new Map($$("[data-live]").map((part) => [part.id, part.outerHTML]));
let failures = 0, dirty = false, timer = 0;

function isBusy() {
  const at = document.activeElement, picked = getSelection();
  const isTyping = at && at.matches("input:not([data-pick], [data-pick-all]), select, textarea") && at.closest("form, [data-live]");
  return dirty || isTyping || $("dialog[open], [data-pick]:checked") || (picked && !picked.isCollapsed);
}
function later() {
  clearTimeout(timer);
  if (every) timer = setTimeout(look, Math.min(every * 2 ** failures, 60000));
}
async function look() {
  if (document.hidden || isBusy()) return later();
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1", Accept: "text/html" }, signal: AbortSignal.timeout(20000) });
    if (answer.redirected) return location.reload();
    if (!answer.ok) throw new Error(answer.status);
    const news = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!isBusy()) for (const part of $$("[data-live]")) exchange(part, news.getElementById(part.id));
    every = pause(news.body);
    failures = 0;
    delete body.dataset.stale;
  } catch {
    failures = Math.min(failures + 1, 6);
    body.dataset.stale = "";
  }
  later();
}
function exchange(old, fresh) {
  if (!fresh || fresh.outerHTML === seen.get(old.id)) return;
  seen.set(old.id, fresh.outerHTML);
  const reachable = "a, button, input, summary, [tabindex]";
  const focus = $$(reachable, old).indexOf(document.activeElement), named = document.activeElement.id;
  const open = $$("details", old).map((each) => each.open), scrolled = $$(".scroll", old).map((each) => [each.scrollLeft, each.scrollTop]);
  const ticked = new Set($$("[data-pick]:checked", old).map((each) => each.value));
  const ours = document.importNode(fresh, true);
  $$("details", ours).forEach((each, index) => { if (index in open) each.open = open[index]; });
  $$("[data-pick]", ours).forEach((each) => { each.checked = ticked.has(each.value); });
  old.replaceWith(ours);
  $$(".scroll", ours).forEach((each, index) => { if (index in scrolled) [each.scrollLeft, each.scrollTop] = scrolled[index]; });
  enhance(ours);
  if (focus >= 0) ((named && ours.querySelector("#" + CSS.escape(named))) || $$(reachable, ours)[focus])?.focus({ preventScroll: true });
}
document.addEventListener("visibilitychange", () => { if (!document.hidden && every) look(); });
later();

// ---- charts: a mark for each row of the table, one stop for the keyboard, arrows inside ----
function mark(plot) {
  const table = $("table", plot.closest("figure")), names = $$("thead th", table).map((each) => each.textContent), rows = [...table.tBodies[0].rows];
  const { width, height } = plot.viewBox.baseVal, kind = plot.dataset.marks, step = kind === "points" ? width / Math.max(rows.length - 1, 1) : width / rows.length;
  rows.forEach((row, index) => {
    const rect = document.createElementNS(plot.namespaceURI, "rect"), [name, ...cells] = [...row.cells].map((each) => each.textContent);
    const told = `${name}: ` + cells.map((cell, place) => (cells.length > 1 ? `${names[place + 1]} ${cell}` : cell)).join(", ");
    const left = kind === "points" ? (rows.length > 1 ? Math.max(0, (index - 0.5) * step) : 0) : index * step, right = kind === "points" ? Math.min(width, rows.length > 1 ? (index + 0.5) * step : width) : (index + 1) * step;
    const place = kind === "rows" ? { x: 0, y: index * height / rows.length, width, height: height / rows.length } : { x: left, y: 0, width: right - left, height };
    for (const [key, value] of Object.entries({ ...place, class: "mark", role: "img", tabindex: index ? -1 : 0, "aria-label": told, "data-tip": told })) rect.setAttribute(key, value);
    plot.append(rect);
  });
}
function enhance(root) {
  for (const plot of $$("svg.plot", root)) mark(plot);
  for (const table of $$("table.stack", root)) {
    const names = $$("thead th", table).map((each) => each.textContent);
    for (const row of $$("tbody tr", table)) [...row.cells].forEach((cell, index) => { cell.dataset.label ??= names[index]; });
  }
  counted();
}
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
document.addEventListener("keydown", (event) => {
  const at = event.target.closest?.(".plot .mark"), step = STEPS[event.key];
  if (!at || !step) return;
  const marks = $$(".mark", at.closest("svg")), next = marks[marks.indexOf(at) + step];
  event.preventDefault();
  if (next) { at.setAttribute("tabindex", "-1"); next.setAttribute("tabindex", "0"); next.focus(); }
});

// ---- tooltips ----
const tip = document.createElement("div");
tip.className = "tip";
function tell(event) {
  const about = event.target.closest?.("[data-tip]");
  if (!about) return tip.remove();
  tip.textContent = about.dataset.tip;
  body.append(tip);
  const place = about.getBoundingClientRect(), own = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(place.left + place.width / 2 - own.width / 2, innerWidth - own.width - 8))}px`;
  tip.style.top = `${place.top > own.height + 16 ? place.top - own.height - 8 : place.bottom + 8}px`;
}
for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, tell);
document.addEventListener("focusout", () => tip.remove());
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.remove(); });

// ---- forms: ask before, send once ----
document.addEventListener("submit", (event) => {
  const form = event.target, ask = event.submitter?.dataset.confirm || form.dataset.confirm, dialog = $("#confirm");
  if (event.submitter?.dataset.into) {
    event.preventDefault();
    return put(form, event.submitter);
  }
  if (ask && dialog && !form.dataset.sure) {
    event.preventDefault();
    const button = event.submitter;
    $("#confirm-text").textContent = ask.replace("{n}", $$("[data-pick]:checked").length);
    dialog.returnValue = "";
    dialog.onclose = () => {
      if (dialog.returnValue !== "yes") return;
      form.dataset.sure = "yes";
      form.requestSubmit(button);
    };
    dialog.showModal();
    return;
  }
  if (form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => $$("button", form).forEach((each) => each.setAttribute("aria-disabled", "true")));
});
// A button with data-into="id" sends the form without leaving the page: of the answer, the part with this id
// takes the place of ours. What was typed stays, secrets too. data-wait is told meanwhile. A field with
// data-soon="id of the button" has it pressed once typing pauses.
async function put(form, button) {
  const part = document.getElementById(button.dataset.into);
  if (part.ariaBusy) return;
  const sent = new URLSearchParams(new FormData(form, button)), told = document.createElement("p");
  const action = button.getAttribute("formaction") || form.getAttribute("action"), isGet = form.method === "get";
  told.className = "hint";
  told.textContent = button.dataset.wait;
  if (button.dataset.wait) part.replaceChildren(told);
  part.ariaBusy = "true";
  button.setAttribute("aria-disabled", "true");
  try {
    const answer = await fetch(isGet ? `${action}?${sent}` : action, { method: form.method, body: isGet ? null : sent, headers: { Accept: "text/html" } });
    const news = new DOMParser().parseFromString(await answer.text(), "text/html");
    part.replaceChildren(...document.importNode(news.getElementById(part.id), true).childNodes);
  } catch {
    told.textContent = "No answer came. Log in again, or try once more.";
    part.replaceChildren(told);
  }
  part.ariaBusy = null;
  button.removeAttribute("aria-disabled");
  if (!button.isConnected) (document.getElementById(button.id) || $("button, select", part))?.focus();
}
let soon = 0;
function press(button) {
  clearTimeout(soon);
  soon = setTimeout(() => ($("[aria-busy]") ? press(button) : put(button.form, button)), 400);
}
document.addEventListener("input", (event) => { if (event.target.dataset.soon) press(document.getElementById(event.target.dataset.soon)); });
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of $$("form[data-sent]")) {
    delete form.dataset.sent;
    delete form.dataset.sure;
    $$("button", form).forEach((each) => each.removeAttribute("aria-disabled"));
  }
});
document.addEventListener("input", (event) => { if (event.target.closest("form[data-guard]")) dirty = true; });
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-auto]");
  if (form) form.requestSubmit();
});
$("[aria-invalid]")?.focus();

// ---- rows: tick one, or all ----
function counted() {
  const picks = $$("[data-pick]"), ticked = picks.filter((each) => each.checked).length;
  for (const all of $$("[data-pick-all]")) { all.checked = ticked > 0 && ticked === picks.length; all.indeterminate = ticked > 0 && ticked < picks.length; }
  for (const told of $$("[data-picked]")) told.textContent = ticked;
  for (const needs of $$("[data-needs-picked]")) needs.disabled = !ticked;
}
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-pick-all]")) for (const each of $$("[data-pick]")) each.checked = event.target.checked;
  if (event.target.matches("[data-pick-all], [data-pick]")) counted();
});

// ---- buttons: copy, dismiss ----
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]"), close = event.target.closest(".alert .close");
  if (close) close.closest(".alert").remove();
  if (!copy) return;
  const text = copy.dataset.copy || $(copy.dataset.copyFrom)?.textContent || $("a", copy.parentElement)?.pathname.split("/").pop() || "";
  const isCopied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  const said = copy.getAttribute("aria-label");
  copy.classList.toggle("copied", Boolean(isCopied));
  copy.setAttribute("aria-label", isCopied ? "Copied" : `Copy by hand: ${text}`);
  setTimeout(() => { copy.classList.remove("copied"); if (said) copy.setAttribute("aria-label", said); }, 1600);
});
for (const flash of $$("[data-flash]:not(.bad)")) {
  let left = setTimeout(() => flash.remove(), $("form", flash) ? 30000 : 8000);
  flash.addEventListener("pointerenter", () => clearTimeout(left));
  flash.addEventListener("focusin", () => clearTimeout(left));
}
const retry = $("[data-retry]");
if (retry) setTimeout(() => location.reload(), Number(retry.dataset.retry) * 1000);

enhance(document);
