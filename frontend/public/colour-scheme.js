// Mantine's own key and attribute: the page must not be painted light first for who wants it dark.
(function () {
  var wanted = "auto";
  try {
    wanted = window.localStorage.getItem("mantine-color-scheme-value") || "auto";
  } catch {
    // Storage is switched off: the system's choice holds.
  }
  var dark = wanted === "auto" ? window.matchMedia("(prefers-color-scheme: dark)").matches : wanted === "dark";
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
