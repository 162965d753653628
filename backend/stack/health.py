"""Waits until every part of a stack is ready, and warms up what would be slow the first time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from backend.deployment.environment import SERVICE_USER
from backend.deployment.layout import Layout, StackError
from backend.deployment.options import StackOptions
from backend.stack.progress import done
from backend.stack.supervision import ProgramState, Supervisor

_SAMPLE_DAG = "visual_ai_workflow"
_POLL = 0.2

_FAILED_STATES = frozenset({"BACKOFF", "FATAL", "EXITED", "UNKNOWN"})


class Readiness:
    """The checks of one start. Heartbeats before `since`, when it began, belong to earlier processes."""

    def __init__(self, layout: Layout, options: StackOptions, service_password: str, since: datetime) -> None:
        self._layout = layout
        self._options = options
        self._service_password = service_password
        self._since = since - timedelta(seconds=1)
        self._client = httpx.Client(timeout=httpx.Timeout(30, connect=1), trust_env=False)
        self._airflow_health: dict[str, Any] = {}

    def wait(self, supervisor: Supervisor, timeout: float, *, frontend: bool) -> None:
        """Wait until every part is ready and show each as it becomes ready. `frontend` says whether it is served.

        Raises `StackError` with the last log lines of a process that fails or isn't ready within `timeout` seconds.
        """
        pending: dict[str, tuple[str, Callable[[], bool]]] = {
            "Backend": ("backend", self._backend),
            **({"Frontend": ("frontend", self._frontend)} if frontend else {}),
            "Airflow API server": ("api-server", self._api_server),
            "Execution API warmed up": ("api-server", self._execution_api),
            "Airflow scheduler": ("scheduler", lambda: self._component("scheduler")),
            "Airflow DAG processor": ("dag-processor", lambda: self._component("dag_processor")),
            "Airflow triggerer": ("triggerer", lambda: self._component("triggerer")),
            "DAGs parsed": ("dag-processor", self._dags),
        }
        started = time.monotonic()
        with self._client:
            while pending:
                for name, (_, ready) in list(pending.items()):
                    if not self._is_ready(ready):
                        if name == "Airflow API server":
                            break  # no other part of Airflow can be ready
                        continue
                    del pending[name]
                    done(name, time.monotonic() - started)
                if not pending:
                    return
                self._raise_if_failed(supervisor.states())
                if time.monotonic() - started > timeout:
                    name, (program, _) = next(iter(pending.items()))
                    raise StackError(
                        f"{name}: not ready after {timeout:.0f} s. If this machine needs longer, set "
                        f"VISUAL_AI_START_TIMEOUT to more seconds. The last lines of {self._log_name(program)}:\n"
                        f"{last_lines(self._layout, program)}"
                    )
                time.sleep(_POLL)

    def _raise_if_failed(self, states: list[ProgramState]) -> None:
        if not states:
            raise StackError(f"The supervisor has exited; see {self._log_name('supervisor')}")
        for state in states:
            if state.state in _FAILED_STATES:
                raise StackError(
                    f"{state.name} exited while starting. The last lines of {self._log_name(state.name)}:\n"
                    f"{last_lines(self._layout, state.name)}"
                )

    def _log_name(self, program: str) -> str:
        return str(self._layout.logs / f"{program}.log")

    @staticmethod
    def _is_ready(ready: Callable[[], bool]) -> bool:
        try:
            return ready()
        except (httpx.HTTPError, ValueError, KeyError):
            return False

    def _api_server(self) -> bool:
        answer = self._client.get(f"{self._options.airflow_url}/api/v2/monitor/health")
        self._airflow_health = answer.json()
        return answer.status_code == httpx.codes.OK and self._airflow_health["metadatabase"]["status"] == "healthy"

    def _component(self, name: str) -> bool:
        self._api_server()
        part = self._airflow_health[name]
        beat = part[f"latest_{name}_heartbeat"]
        return part["status"] == "healthy" and datetime.fromisoformat(beat).astimezone(UTC) >= self._since

    def _execution_api(self) -> bool:
        # Airflow builds it on the first request; without this the user's first run takes seconds longer.
        return self._client.get(f"{self._options.airflow_url}/execution/health/ping").status_code < 500

    def _backend(self) -> bool:
        return self._client.get(f"{self._options.backend_url}/readyz").status_code == httpx.codes.OK

    def _frontend(self) -> bool:
        return self._client.get(f"{self._options.frontend_url}/").status_code == httpx.codes.OK

    def _dags(self) -> bool:
        if not (self._layout.root / "airflow" / "dags" / f"{_SAMPLE_DAG}_dag.py").is_file():
            return True
        login = self._client.post(
            f"{self._options.airflow_url}/auth/token",
            json={"username": SERVICE_USER, "password": self._service_password},
        )
        login.raise_for_status()
        dag = self._client.get(
            f"{self._options.airflow_url}/api/v2/dags/{_SAMPLE_DAG}",
            headers={"Authorization": f"Bearer {login.json()['access_token']}"},
        )
        return dag.status_code == httpx.codes.OK


def last_lines(layout: Layout, program: str, count: int = 25) -> str:
    """The last lines of a process's log."""
    try:
        text = (layout.logs / f"{program}.log").read_text(errors="replace")
    except OSError:
        return "(the log is empty)"
    return "\n".join(text.splitlines()[-count:]) or "(the log is empty)"
