// Sends another request without reloading the page, to show how the workers share requests.
"use strict";

const button = document.getElementById("again");
const said = document.getElementById("said");

async function ask() {
  try {
    const answer = await fetch("/api/request", { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const way = await answer.json();
    for (const field of document.querySelectorAll("[data-key]")) {
      field.textContent = way[field.dataset.key];
    }
    said.textContent = `Worker ${way.worker} of ${way.container} answered.`;
  } catch (problem) {
    said.textContent = `No response (${problem.message}). Try again in a moment.`;
  }
}

button.hidden = false;
button.addEventListener("click", ask);
