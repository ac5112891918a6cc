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

// ---- what is new on the page, or was there from the beginning ----
function enhance(root) {
  for (const plot of $$("svg.plot", root)) mark(plot);
  for (const table of $$("table.stack", root)) {
    const names = $$("thead th", table).map((each) => each.textContent);
    for (const row of $$("tbody tr", table)) [...row.cells].forEach((cell, index) => { cell.dataset.label ??= names[index]; });
  }
  counted();
}

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
