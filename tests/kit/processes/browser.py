"""Debian's Chromium, driven by Playwright, as a person at the pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in _NAMES if (found := shutil.which(name))), None)
"""The browser of this machine; None without one."""

_ARGUMENTS = [
    "--no-sandbox",  # which containers don't have
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Scheme = Literal["light", "dark"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody with a page of their own. What the page complains of is kept in `complaints`."""

    def __init__(self, browser: Browser, url: str, *, scheme: Scheme = "light") -> None:
        self.context = browser.new_context(
            base_url=url, viewport={"width": 1400, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.context.set_default_timeout(30_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.complaints.append(message.text) if "Content Security" in message.text else None,
        )

    def sign_in(self, username: str, password: str, *, to: str = "/runs") -> None:
        """Sign in on the way to a page."""
        self.page.goto(to)
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"**{to}")

    def start(self, dag_id: str, **fields: str) -> str:
        """Fill in a workflow's form and run it; gives the run's id, with its page open."""
        page = self.page
        page.goto(f"/run/{dag_id}")
        for label, text in fields.items():
            page.get_by_label(label, exact=True).fill(text)
        page.get_by_role("button", name="Run", exact=True).click()
        page.wait_for_url(f"**/runs/{dag_id}/**")
        return page.url.partition("?")[0].rpartition("/")[2]

    def wait_for_state(self, *states: str, timeout: float = 90) -> None:
        """Wait until the run's page shows one of these states, by their words."""
        sign = self.page.get_by_role("status", name="State of the run")
        self.page.wait_for_function(
            "([element, states]) => states.some((state) => element.innerText.includes(state))",
            arg=[sign.element_handle(), list(states)],
            timeout=timeout * 1000,
        )
