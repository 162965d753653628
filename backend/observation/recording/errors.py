"""Writes what went wrong in an agent: a row for each error, an event, and whether it was recovered from."""

from collections.abc import Sequence

from sqlalchemy import Connection

from backend.core.events import NewEvent
from backend.core.redaction import hide
from backend.core.workflow_error_handler import Action, Classified, FailedAttempt, action_of, wait_of
from backend.db.runs import errors
from backend.db.runs.traces import SHOWN_ITEMS, Place
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import RowsWithEvents


class ErrorRecords:
    """The errors of one agent in one try. Nothing here waits or raises: the recorder writes later."""

    def __init__(self, recorder: Recorder, place: Place) -> None:
        self._recorder = recorder
        self._place = place
        self._earlier = place.try_number > 1 and place.item is None

    def of_attempt(self, failed: FailedAttempt, node: str | None) -> None:
        """Record a failed attempt that another one follows."""
        action = action_of(failed.decision)
        self.write(failed.classified, action, model=failed.model, node=node, attempt=failed, error_id=failed.id)

    def write(
        self,
        found: Classified,
        action: Action,
        *,
        model: str | None,
        node: str | None,
        attempt: FailedAttempt | None = None,
        error_id: str | None = None,
        silent: bool = False,
    ) -> None:
        """Record an error. The stream gets neither a `silent` one, nor more than a batch's first ones."""
        recorder, place = self._recorder, self._place
        recorder.errors_shown += not silent
        silent = silent or (place.item is not None and recorder.errors_shown > SHOWN_ITEMS)
        hidden = recorder.hidden
        context = {**((attempt.context or {}) if attempt is not None else {}), "chain": list(found.chain)}

        def write(connection: Connection, execution_id: str) -> list[NewEvent]:
            payload = errors.add(
                connection,
                execution_id,
                place,
                category=found.category,
                exception_type=found.exception_type,
                message=hide(found.message, hidden),
                action=action,
                attempt=attempt.number if attempt is not None else 1,
                retry_in=wait_of(attempt.decision) if attempt is not None else None,
                model=model,
                node=node,
                context=hide(context, hidden),
                error_id=error_id,
            )
            return [] if silent else [NewEvent("error", payload)]

        recorder.put(RowsWithEvents(write))

    def recovered(self, error_ids: Sequence[str]) -> None:
        """Report that what was attempted succeeded after these errors."""
        self._recorder.put(RowsWithEvents(lambda connection, _: errors.recover(connection, error_ids)))

    def follows_another(self) -> None:
        """The agent resumes what an earlier try, or this one in another triggerer, has left."""
        self._earlier = True

    def succeeded(self) -> None:
        """The agent succeeded, so the errors that ended it in earlier tries are recovered."""
        if self._earlier:
            place = self._place
            self._recorder.put(RowsWithEvents(lambda connection, run: errors.recover_earlier(connection, run, place)))
