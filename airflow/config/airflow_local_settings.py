"""Loaded by every Airflow process. In the one that forks tasks it imports what agents need, before the fork.

A task that imports langgraph and langchain by itself takes 1.9 s; forked from a process that has them it
takes as long as an empty one. Only the scheduler (with LocalExecutor) and Celery's workers fork tasks: the API server,
the DAG processor, the triggerer and the scheduler of other executors must not pay for it.
"""

import contextlib
import importlib
import logging
import os
import sys
import threading
from pathlib import Path

__all__: list[str] = []  # nothing here is a setting or a policy

# No client, connection or thread may exist before the fork. onnxruntime, and with it OCR, is left out on purpose: its
# import starts a thread.
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
"""Functions that load data, which all tasks then share: module and name."""


def forks_tasks(arguments: list[str], executor: str) -> bool:
    """Whether this command line (`sys.argv`) is of a process that forks tasks, with Airflow's `executor` setting."""
    if "airflow" not in Path(arguments[0]).name:
        return False
    return arguments[1:3] == ["celery", "worker"] or (arguments[1:2] == ["scheduler"] and "LocalExecutor" in executor)


def preload(modules: tuple[str, ...] = PRELOADED, functions: tuple[str, ...] = PREPARED) -> list[str]:
    """Import what there is; return the names that failed. Nothing that fails here may stop the scheduler."""
    log = logging.getLogger(__name__)
    # numpy's linear algebra starts a thread per core when it is imported; a user's own value stays.
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
            if not (error.name and module.startswith(error.name)):  # present, but broken
                log.warning("preload of %s failed", name, exc_info=True)
            failed.append(name)
        except Exception:
            log.warning("preload of %s failed", name, exc_info=True)
            failed.append(name)
        if _threads() > threads:
            log.warning("the preloaded %s started a thread; forked tasks may hang", name)
            threads = _threads()
    return failed


def _threads() -> int:
    """The process's threads, also those that Python doesn't know of where the system tells."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


def _executor() -> str:
    from airflow.configuration import conf

    return str(conf.get("core", "executor"))


if forks_tasks(sys.argv, _executor()):
    with contextlib.suppress(Exception):
        preload()
