"""Loaded by every Airflow process. In the one that forks tasks it imports what agents need, before the fork.

A task that imports langgraph, langchain and langfuse by itself takes 1.9 s; forked from a process that has them it
takes as long as an empty one. Only the scheduler (LocalExecutor) and Celery's workers fork tasks: the API server, the
DAG processor and the triggerer must not pay for it.
"""

import contextlib
import importlib
import logging
import os
import sys
import threading
from pathlib import Path

__all__: list[str] = []  # nothing here is a setting or a policy

# Imported, never called: no client, connection or thread may exist before the fork. OCR is left out on purpose; its
# runtime starts a thread pool.
PRELOADED = (
    "airflow.sdk.execution_time.task_runner",
    "psycopg",
    "psycopg_binary",
    "sqlalchemy.dialects.postgresql.psycopg",
    "httpx",
    "pydantic_settings",
    "langgraph.graph",
    "langgraph.checkpoint.postgres.aio",
    "langchain.chat_models",
    "langchain_openai",
    "langfuse",
    "langfuse.langchain",
    "PIL.Image",
    "backend.core.settings",
    "backend.db.engine",
    "backend.agents.runner",
    "backend.agents.registry",
    "visual_ai_operators",
)


def forks_tasks(arguments: list[str]) -> bool:
    """Whether this command line (`sys.argv`) is of a process that forks tasks."""
    return "airflow" in Path(arguments[0]).name and (
        arguments[1:2] == ["scheduler"] or arguments[1:3] == ["celery", "worker"]
    )


def preload(modules: tuple[str, ...] = PRELOADED) -> list[str]:
    """Import what there is; return the names that failed. Nothing that fails here may stop the scheduler."""
    log = logging.getLogger(__name__)
    # numpy's linear algebra starts a thread per core when it is imported; a user's own value stays.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    threads = threading.active_count()
    failed = []
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not (error.name and name.startswith(error.name)):  # present, but broken
                log.warning("preload of %s failed", name, exc_info=True)
            failed.append(name)
        except Exception:
            log.warning("preload of %s failed", name, exc_info=True)
            failed.append(name)
    if threading.active_count() > threads:
        log.warning("a preloaded module started a thread; forked tasks may hang: %s", threading.enumerate())
    return failed


if forks_tasks(sys.argv):
    with contextlib.suppress(Exception):
        preload()
