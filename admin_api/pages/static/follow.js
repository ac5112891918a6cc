"use strict";
// A job's text as it is written, into the part with data-follow="address of its events". It is kept here, for live
// parts are exchanged meanwhile. A hidden page hears nothing: a browser has but six connections to us.
const heard = { at: "", text: "", source: null, soon: 0 };
const rest = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1500 : 50;
function attend() {
  const part = $("[data-follow]");
  if (part && heard.at !== part.dataset.follow) listen(part.dataset.follow);
  show();
}
function listen(at) {
  heard.source?.close();
  const source = new EventSource(at);
  Object.assign(heard, { at, text: "", source });
  source.addEventListener("text", (event) => say(heard.text + JSON.parse(event.data).text));
  source.addEventListener("restarted", () => say(""));
  source.addEventListener("done", () => { source.close(); look(); });
}
function say(text) {
  heard.text = text;
  heard.soon ||= setTimeout(show, rest);
}
function show() {
  const part = $("[data-follow]");
  heard.soon = 0;
  if (!part) return;
  const told = part.textContent;
  if (!heard.text.startsWith(told)) part.textContent = heard.text;
  else if (heard.text !== told) part.append(heard.text.slice(told.length));
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) heard.source?.close();
  else if ($("[data-follow]")) listen(heard.at);
});
document.addEventListener("DOMContentLoaded", () => {
  attend();
  new MutationObserver(attend).observe($("main"), { childList: true, subtree: true });
});
