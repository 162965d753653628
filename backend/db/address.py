"""Database addresses as URLs, with every part quoted so that libpq, SQLAlchemy and yoyo read the same."""

from urllib.parse import quote, urlencode

from sqlalchemy.engine import URL, make_url


def database_url(host: str, port: int, database: str, user: str, password: str, driver: str = "psycopg") -> str:
    """A SQLAlchemy URL."""
    return _render(URL.create(f"postgresql+{driver}", user, password, host, port, database), f"postgresql+{driver}")


def plain_url(url: str) -> str:
    """The libpq form of a SQLAlchemy URL, as psycopg takes it."""
    return _render(make_url(url), "postgresql")


def with_login(url: str, user: str, password: str) -> str:
    """The same database for another user, as a SQLAlchemy URL for psycopg 3."""
    return _render(make_url(url).set(username=user, password=password), "postgresql+psycopg")


def _render(url: URL, scheme: str) -> str:
    # SQLAlchemy's own rendering leaves spaces in a password, which libpq refuses.
    login = ":".join(quote(part, safe="") for part in (url.username, url.password) if part is not None)
    host = url.host or ""
    place = f"[{host}]" if ":" in host else host
    port = f":{url.port}" if url.port else ""
    query = f"?{urlencode(url.normalized_query, doseq=True, quote_via=quote)}" if url.query else ""
    return f"{scheme}://{login}{'@' if login else ''}{place}{port}/{quote(url.database or '', safe='')}{query}"
