"""Database URLs, quoted so that libpq, SQLAlchemy and yoyo all parse them the same way."""

from urllib.parse import quote, urlencode

from sqlalchemy.engine import URL, make_url


def database_url(host: str, port: int, database: str, user: str, password: str, driver: str = "psycopg") -> str:
    """The SQLAlchemy URL of a database."""
    return _render(URL.create(f"postgresql+{driver}", user, password, host, port, database), f"postgresql+{driver}")


def plain_url(url: str) -> str:
    """The libpq form of a SQLAlchemy URL, for psycopg."""
    return _render(make_url(url), "postgresql")


def with_login(url: str, user: str, password: str) -> str:
    """The SQLAlchemy URL of the same database for another user, with psycopg 3 as the driver."""
    return _render(make_url(url).set(username=user, password=password), "postgresql+psycopg")


def _render(url: URL, scheme: str) -> str:
    # SQLAlchemy's own rendering doesn't quote spaces in a password, which libpq rejects.
    login = ":".join(quote(part, safe="") for part in (url.username, url.password) if part is not None)
    host = url.host or ""
    place = f"[{host}]" if ":" in host else host
    port = f":{url.port}" if url.port else ""
    query = f"?{urlencode(url.normalized_query, doseq=True, quote_via=quote)}" if url.query else ""
    return f"{scheme}://{login}{'@' if login else ''}{place}{port}/{quote(url.database or '', safe='')}{query}"
