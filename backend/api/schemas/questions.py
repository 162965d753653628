"""Bodies of questions and answers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class QuestionOut(BaseModel):
    """A question that an agent of a run asks people."""

    question_id: str
    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    agent: str
    item: int | None = Field(description="The index of a batch's input")
    node: str | None = Field(description="The node that waits; of a subgraph `outer/inner`")
    kind: Literal["question", "approval", "breakpoint"] = Field(
        description="question: takes an `answer`. approval: tool calls, each of which takes a decision. breakpoint: "
        "takes a `decision`"
    )
    subject: str
    content: Any = Field(description="What the graph passed to `interrupt()`")
    schema_: dict[str, Any] | None = Field(alias="schema", description="The JSON Schema of the answer")
    state: Literal["open", "answered", "closed"]
    asked_at: datetime
    expires_at: datetime | None
    assignees: list[str] = Field(description="If not empty, only these users and Admins may answer")
    four_eyes: bool = Field(description="Whether somebody else than the run's user has to answer")
    answered_at: datetime | None
    answered_by: str | None = Field(description="Null if nobody answered in time")
    answered_via: Literal["api", "airflow", "timeout"] | None
    decision: str | None
    answer: Any = Field(description="What `interrupt()` returned")
    closed_reason: str | None = Field(description="Why nobody waits for an answer any more")
    refusal: str | None = Field(description="Why you may not answer it; null if you may")


class QuestionList(BaseModel):
    """A page of questions."""

    questions: list[QuestionOut]
    next_cursor: str | None


class AssignBody(BaseModel):
    """Who shall answer a question."""

    model_config = ConfigDict(extra="forbid")

    assignees: list[Annotated[str, Field(min_length=1, max_length=250)]] = Field(
        min_length=1, max_length=100, description="Names of Airflow's users. Only they and Admins may answer then"
    )


class AnswerBody(BaseModel):
    """An answer: a `decision` where approving or rejecting is enough, or an `answer`."""

    model_config = ConfigDict(extra="forbid")

    decision: Literal["approve", "reject"] | None = Field(
        None, description="For an approval, of all of its tool calls; for a breakpoint"
    )
    answer: Any = Field(
        None,
        description='What `interrupt()` returns. For an approval `{"decisions": [{"type": "approve"}, …]}`, one of '
        "each tool call, of type approve, edit (with `edited_action`), reject or respond (with `message`)",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> "AnswerBody":
        if ("answer" in self.model_fields_set) == (self.decision is not None):
            raise ValueError("give either a decision or an answer")
        return self
