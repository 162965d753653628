"""The services behind `/langgraph`, wired together."""

from dataclasses import dataclass

from backend.services.langgraph.assistants import Assistants
from backend.services.langgraph.conversations import Conversations
from backend.services.langgraph.crons import Crons
from backend.services.langgraph.feed import TurnFeed
from backend.services.langgraph.runs import TurnRuns
from backend.services.langgraph.states import States
from backend.services.langgraph.store import Store
from backend.services.langgraph.streams import TurnStreams


@dataclass(frozen=True, slots=True)
class LangGraph:
    """What LangGraph's clients talk to."""

    assistants: Assistants
    conversations: Conversations
    states: States
    runs: TurnRuns
    streams: TurnStreams
    crons: Crons
    store: Store
    feed: TurnFeed
