// Uses Mantine's own key and attribute, so that a page in dark mode doesn't flash light first.
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
