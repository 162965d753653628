"""What browsers are told, and what pages of other origins can't do with a user's cookie."""

import asyncio
import io
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, served, sign_in
from tests.kit.pictures import camera_exif, encode, photo
from tests.kit.processes.browser import CHROMIUM, chromium
from tests.kit.servers.pictures import answer, serving

OWN = "https://agents.example.com"
ORIGINS: dict[str, Any] = {"public_url": OWN, "cors_origins": ("https://friend.example.com",), **PRODUCTION}


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow")
    return airflow


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),  # no browser
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": OWN}, True),  # an older browser
        ({"Origin": "https://friend.example.com", "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "https://evil.example.com", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "https://agents.example.com:8443", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "https://evil.example.com"}, False),
        ({"Origin": "https://agents.example.com.evil.test"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
    ],
)
async def test_only_our_own_pages_use_a_cookie(
    database_url: str, airflow: FakeAirflow, headers: dict[str, str], passes: bool
) -> None:
    async with application(database_url, airflow, **ORIGINS) as app, client_of(app, base_url=OWN) as http:
        token = (await http.post("/auth/token", json={"username": "otto", "password": PASSWORD})).json()["access_token"]
        files = {"file": ("picture.png", b"no picture", "image/png")}
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "/images", {"files": files}),
            (
                "POST",
                "/workflows/trigger",
                {"json": {"dag_id": "visual_ai_workflow", "input_data": {"image_url": "x"}}},
            ),
            ("POST", "/templates/judge/retire", {}),
            ("POST", "/workflows/visual_ai_workflow/runs/run/cancel", {}),
            ("PUT", "/users/me/preferences", {"json": {}}),
            ("POST", "/auth/logout", {}),
            ("POST", "/auth/token", {"json": {"username": "ulla", "password": PASSWORD}}),
        ]
        for method, path, body in requests:
            http.cookies.set("__Host-visual_ai_session", token)
            answer = await http.request(method, path, headers=headers, **body)
            refused = answer.status_code == 403 and "another origin" in answer.text
            assert refused is not passes, (method, path, answer.text)
            if refused:
                assert answer.headers["content-type"] == "application/problem+json"
                assert "set-cookie" not in answer.headers
        http.cookies.clear()  # signed out above
        token = (await http.post("/auth/token", json={"username": "otto", "password": PASSWORD})).json()["access_token"]
        http.cookies.set("__Host-visual_ai_session", token)
        assert (await http.get("/workflow-status", headers=headers)).status_code == 200  # whose answer it can't read
        http.cookies.clear()
        bearer = {**headers, "Authorization": f"Bearer {token}"}
        assert (await http.put("/users/me/preferences", json={}, headers=bearer)).status_code == 200


async def test_over_tls_the_cookie_is_bound_to_the_host(database_url: str, airflow: FakeAirflow) -> None:
    async with application(database_url, airflow, **ORIGINS) as app, client_of(app, base_url=OWN) as http:
        answer = await http.post("/auth/token", json={"username": "ulla", "password": PASSWORD})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-visual_ai_session=")
        assert {"HttpOnly", "Secure", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        assert (await http.get("/users/me")).status_code == 200
        gone = (await http.post("/auth/logout")).headers["set-cookie"]
        assert gone.startswith('__Host-visual_ai_session=""')
        assert {"Secure", "Path=/"} <= set(gone.split("; "))


async def test_every_answer_says_what_browsers_may_do_with_it(database_url: str, airflow: FakeAirflow) -> None:
    async with application(database_url, airflow, **ORIGINS) as app, client_of(app, base_url=OWN) as http:

        async def broken() -> None:
            raise RuntimeError

        app.add_api_route("/broken", broken)
        for path, status in (("/healthz", 200), ("/workflow-status", 401), ("/nowhere", 404), ("/broken", 500)):
            answer = await http.get(path)
            assert answer.status_code == status
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            assert answer.headers["cache-control"] == "no-store"
        answer = await http.post("/workflows/trigger", content=b"x" * 6_000_000)
        assert (answer.status_code, answer.headers["x-frame-options"]) == (413, "DENY")


async def test_pictures_of_other_hosts_come_through_the_backend(database_url: str, airflow: FakeAirflow) -> None:
    settings = {**PRODUCTION, "allow_private_images": True, "max_image_bytes": 3_000_000}
    async with (
        serving() as pictures,
        application(database_url, airflow, **settings) as app,
        client_of(app) as http,
    ):
        pictures.answers["/a.jpg"] = answer(encode(photo(2500, 100), "JPEG", exif=camera_exif(1)))
        pictures.answers["/page"] = answer(b"<script>alert(1)</script>", content_type="image/svg+xml")
        remote = "/images/remote"
        assert (await http.get(remote, params={"url": pictures.url("/a.jpg")})).status_code == 401
        victor = await sign_in(http, "victor")
        shown = await http.get(remote, params={"url": pictures.url("/a.jpg")}, headers={**victor, "User-Agent": "mine"})
        assert shown.status_code == 200
        with Image.open(io.BytesIO(shown.content)) as picture:
            assert picture.size == (2048, 82)
            assert not picture.getexif()
        assert shown.headers["cache-control"] == "private, max-age=300, immutable"
        assert shown.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert "mine" not in pictures.requests[0]
        assert "authorization" not in pictures.requests[0].lower()
        for url, words in (
            (pictures.url("/page"), "not a picture"),
            (pictures.url("/gone"), "404"),
            ("http://169.254.169.254/latest/meta-data/", "never allowed"),
            ("file:///etc/passwd", "https://"),
            ("upload://x", "https://"),
            ("data:image/png;base64,aGk=", "https://"),
        ):
            refused = await http.get(remote, params={"url": url}, headers=victor)
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["pointer"] == "?url"
            assert words in refused.json()["detail"]


async def test_a_user_can_have_so_much_fetched_a_minute(database_url: str, airflow: FakeAirflow) -> None:
    settings = {**PRODUCTION, "allow_private_images": True, "remote_image_bytes_per_minute": 100_000}
    async with (
        serving() as pictures,
        application(database_url, airflow, **settings) as app,
        client_of(app) as http,
    ):
        pictures.answers["/a.png"] = answer(encode(photo(200, 100)))
        asked = {"url": pictures.url("/a.png")}
        victor, ulla = await sign_in(http, "victor"), await sign_in(http, "ulla")
        assert (await http.get("/images/remote", params=asked, headers=victor)).status_code == 200
        refused = await http.get("/images/remote", params=asked, headers=victor)
        assert (refused.status_code, refused.json()["title"]) == (429, "Too many requests")
        assert 30 < int(refused.headers["retry-after"]) <= 60
        assert len(pictures.requests) == 1
        assert (await http.get("/images/remote", params=asked, headers=ulla)).status_code == 200


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium isn't installed")
async def test_the_documentation_works_offline(database_url: str, airflow: FakeAirflow) -> None:
    def look(address: str) -> tuple[list[str], list[str], list[str]]:
        texts, foreign, problems = [], [], []
        with chromium() as browser:
            for path, shown in (("/docs", '[data-path="/workflows/trigger"]'), ("/redoc", "text=Trigger")):
                page = browser.new_page()
                page.on("request", lambda request: foreign.append(request.url))
                page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
                page.on("pageerror", lambda error: problems.append(str(error)))
                page.goto(f"{address}{path}")
                page.wait_for_selector(shown, state="attached", timeout=30_000)
                texts.append(page.inner_text("body"))
                page.close()
        return texts, [url for url in foreign if not url.startswith((address, "blob:", "data:"))], problems

    async with application(database_url, airflow) as app, served(app) as address:
        texts, foreign, problems = await asyncio.to_thread(look, address)
        async with httpx.AsyncClient(base_url=address) as http:
            assert (await http.get("/docs/assets/../../main.py")).status_code == 404
    assert all("/workflows/trigger" in text or "Trigger" in text for text in texts)
    assert foreign == []
    assert problems == []
