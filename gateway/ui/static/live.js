"use strict";
// Pages are whole without this. It renews the overview while somebody looks, and says where a slider stands.
const live = document.getElementById("live");
if (live && window.EventSource) {
  const bar = document.createElement("p");
  bar.className = "dim";
  const button = document.createElement("button");
  button.className = "quiet";
  const state = document.createElement("span");
  state.setAttribute("role", "status");
  bar.append(button, " ", state);
  document.getElementById("bar").append(bar);

  let source = null;
  const say = (text) => {
    if (state.textContent !== text) state.textContent = text;
  };
  const inUse = () => {
    const chosen = window.getSelection();
    return live.contains(document.activeElement) || (!chosen.isCollapsed && live.contains(chosen.anchorNode));
  };
  const stop = () => {
    source.close();
    source = null;
    button.textContent = "Go on";
    say("paused");
  };
  const start = () => {
    button.textContent = "Pause";
    source = new EventSource(live.dataset.stream);
    source.addEventListener("open", () => say("renewed every 2 s"));
    source.addEventListener("error", () => say("the gateway doesn't answer; it is asked again"));
    source.addEventListener("glance", (event) => {
      if (!inUse()) live.innerHTML = event.data; // made by the server, with every value escaped
    });
  };
  button.addEventListener("click", () => (source ? stop() : start()));
  start();
}

const slider = document.getElementById("version");
if (slider) {
  const said = document.getElementById("version-said");
  slider.addEventListener("input", () => {
    said.value = slider.value;
  });
}
