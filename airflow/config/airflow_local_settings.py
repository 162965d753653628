"""Airflow loads this module in all of its processes.

Processes that fork tasks preload the agents' imports. Importing langgraph and langchain takes a task 1.9 s; forked from
a process that has imported them, it starts as fast as an empty task. Only the scheduler (with LocalExecutor) and Celery
workers fork tasks: the API server, the DAG processor, the triggerer and the scheduler with other executors must not pay
for the imports.

`airflow dags test` keeps its tasks to itself. A scheduler that runs beside it would take those that are ready for its
own: they would run, and be paid for, twice.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

# No client, connection or thread may exist before the fork. onnxruntime, and therefore OCR, is left out on purpose:
# importing it starts a thread.
PRELOADED = (
    "airflow.sdk.execution_time.task_runner",
    "psycopg",
    "psycopg_binary",
    "sqlalchemy.dialects.postgresql.psycopg",
    "httpx",
    "pydantic_settings",
    "numpy",
    "langgraph.graph",
    "langgraph.checkpoint.postgres.aio",
    "langchain.chat_models",
    "langchain_core.messages.block_translators.langchain_v0",
    "langchain_core.tracers.context",
    "langchain_core.tracers.run_collector",
    "langchain_core.tracers.stdout",
    "langchain_openai",
    "genai_prices",
    "PIL.Image",
    "PIL.PngImagePlugin",
    "PIL.JpegImagePlugin",
    "webcolors",
    "cv2",
    "segtok.segmenter",
    "py3langid",
    "yake",
    "sumy.nlp.stemmers",
    "sumy.summarizers.lex_rank",
    "backend.core.settings",
    "backend.db.engine",
    "backend.services.recording.listener",
    "backend.agents.registry",
    "backend.observation.recording.run_result",
    "backend.runtime.runner",
    "backend.runtime.worker",
    "backend.runtime.team.run",
    "backend.runtime.input_checks",
    "backend.pictures.cache",
    "backend.pictures.fetch",
    "backend.models.offline.text",
    "backend.models.offline.vision",
    "backend.agents.text",
    "backend.agents.vision",
    "backend.agents.synthesis",
    "visual_ai_operators",
)

PREPARED = (
    "backend.models.offline.text_analysis:prepare",
    "backend.models.http_clients:tls",
    "backend.db.rehearsal:rehearse",
    "backend.observation.tracing.client:prepare",
)
"""Functions (`module:name`) that load data for all tasks to share."""


def forks_tasks(arguments: list[str], executor: str) -> bool:
    """Whether the process with this command line (`sys.argv`) and Airflow's `executor` setting forks tasks."""
    if "airflow" not in Path(arguments[0]).name:
        return False
    return arguments[1:3] == ["celery", "worker"] or (arguments[1:2] == ["scheduler"] and "LocalExecutor" in executor)


def preload(modules: tuple[str, ...] = PRELOADED, functions: tuple[str, ...] = PREPARED) -> list[str]:
    """Import the modules and call the functions; return the names that failed. A failure never stops the scheduler."""
    log = logging.getLogger(__name__)
    # numpy's linear algebra library starts a thread per core on import. The user's own value is kept.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    threads = _threads()
    failed = []
    for name in (*modules, *functions):
        module, _, function = name.partition(":")
        try:
            loaded = importlib.import_module(module)
            if function:
                getattr(loaded, function)()
        except ModuleNotFoundError as error:
            if not (error.name and module.startswith(error.name)):  # installed, but broken
                log.warning("preloading %s failed", name, exc_info=True)
            failed.append(name)
        except Exception:
            log.warning("preloading %s failed", name, exc_info=True)
            failed.append(name)
        if _threads() > threads:
            log.warning("preloading %s started a thread; forked tasks may hang", name)
            threads = _threads()
    return failed


def _threads() -> int:
    """The number of threads, including native ones where the system reports them."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


def _executor() -> str:
    from airflow.configuration import conf

    return str(conf.get("core", "executor"))


TEST_POOL = "airflow dags test"


def task_instance_mutation_hook(task_instance: TaskInstance) -> None:
    """Put a task into a pool that doesn't exist, from which no scheduler takes it; `dags test` asks for no pool."""
    task_instance.pool = TEST_POOL


# What Airflow finds of this module's names.
__all__ = ["task_instance_mutation_hook"] if sys.argv[1:3] == ["dags", "test"] else []

if forks_tasks(sys.argv, _executor()):
    with contextlib.suppress(Exception):
        preload()
