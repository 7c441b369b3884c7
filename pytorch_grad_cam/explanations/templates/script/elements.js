// Elements

const byId = (id) => document.getElementById(id);

function element(tag, text, name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = name;
  return made;
}

function button(label, act) {
  const made = element("button", "");
  made.type = "button";
  made.append(...label);
  made.addEventListener("click", act);
  return made;
}

function press(id, pressed) {
  [...byId(id).children].forEach((each, index) => each.setAttribute("aria-pressed", index === pressed));
}

function toggle(id, act) {
  byId(id).addEventListener("click", () => act(byId(id).getAttribute("aria-pressed") === "false"));
}
