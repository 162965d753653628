"""`cancel` and `retry`: what changes a run."""

import json
from urllib.parse import quote

from backend.cli.connection import Backend
from backend.cli.errors import SUCCESS
from backend.cli.following import Following
from backend.cli.session import say


class Change:
    """Cancels or retries a run, and follows it if that is wanted. It is done once, however often it is called."""

    def __init__(self, dag_id: str, dag_run_id: str, what: str, *, as_json: bool, then: Following | None) -> None:
        self._path = f"/workflows/{quote(dag_id, safe='')}/runs/{quote(dag_run_id, safe='')}/{what}"
        self._name = dag_run_id
        self._as_json = as_json
        self._then = then
        self._done = False

    async def __call__(self, backend: Backend) -> int:
        """Do it and tell the state in which the run is now."""
        if not self._done:
            answer = await backend.post(self._path)
            self._done = True
            if not self._as_json:
                say(f"{self._name} is {answer['state']}.")
            elif self._then is None:
                print(json.dumps(answer))
        return SUCCESS if self._then is None else await self._then(backend)
