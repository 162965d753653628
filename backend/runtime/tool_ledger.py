"""The ledger of a task's tool calls, in the database."""

import uuid
from functools import partial

from backend.agents.tools.ledger import Claimed, Outcome, ToolCall
from backend.core.redaction import hide
from backend.db import tool_calls
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.runs.threads import Claim
from backend.db.tool_calls import CallKey
from backend.observation.recording.recorder import Recorder


class TaskToolLedger:
    """Keeps the tool calls of one try, under its claim on the task's thread."""

    def __init__(self, database: Database, recorder: Recorder, claim: Claim) -> None:
        self._database = database
        self._recorder = recorder
        self._claim = claim

    async def claim(self, call: ToolCall) -> Claimed:
        """Begin an attempt. Raises `SupersededError`."""
        recorder, claimant = self._recorder, str(uuid.uuid4())
        about = {
            "call_id": call.call_id,
            "agent": call.agent,
            "tool": call.tool,
            "arguments": hide(dict(call.arguments), recorder.hidden),
        }
        if recorder.execution_id is None:
            await recorder.flush()
        execution_id = recorder.execution_id
        if execution_id is None:
            raise ConnectionError("the database is unavailable, and no tool is called without it")
        work = partial(
            tool_calls.claim,
            execution_id=execution_id,
            place=recorder.place,
            held_by=self._claim,
            key=_key(call),
            claimant=claimant,
            about=about,
        )
        row = await retry_until_available(partial(self._database.run, work))
        if row["finished_at"] is not None:
            return Claimed(False, Outcome(row["result"], row["state"] == "failed"))
        return Claimed(str(row["claimant"]) == claimant)

    async def finish(self, call: ToolCall, outcome: Outcome) -> None:
        work = partial(tool_calls.finish, key=_key(call), failed=outcome.failed, result=outcome.content)
        await retry_until_available(partial(self._database.run, work))

    async def release(self, call: ToolCall) -> None:
        await retry_until_available(partial(self._database.run, tool_calls.release, _key(call)))


def _key(call: ToolCall) -> CallKey:
    return CallKey(call.thread_id, call.place, call.attempt)
