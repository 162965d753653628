"""Graphs of built-in agents that are alike, compiled once for all of an event loop."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from backend.runtime.graphs.run import Graph

LIMIT = 64


class GraphCache:
    """The latest graphs, by all that they are made of. They hold nothing of a task: who runs one takes a copy with a
    checkpointer of its own."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[Hashable, Graph] = OrderedDict()

    def find(self, key: Hashable, make: Callable[[], Graph]) -> Graph:
        """The graph of that key, made when there is none."""
        graph = self._graphs.pop(key, None)
        self._graphs[key] = graph = make() if graph is None else graph
        if len(self._graphs) > LIMIT:
            self._graphs.popitem(last=False)
        return graph
