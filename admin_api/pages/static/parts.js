"use strict";
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
