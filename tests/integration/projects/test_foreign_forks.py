"""Time travel in a graph of a project with an environment of its own."""

from pathlib import Path

import pytest

from backend.core.settings import Settings
from backend.runtime.specs import parse_agent
from tests.kit.fixtures.forks import ForkableRuns
from tests.kit.openai.server import OpenAIServer


@pytest.fixture
def task_settings(task_settings: Settings, foreign_projects: Path) -> Settings:
    """Settings of a task that has the projects."""
    return task_settings.model_copy(update={"projects_dir": str(foreign_projects)})


@pytest.mark.parametrize("project", ["pinned", "old"])
async def test_a_fork_goes_on_with_a_changed_state(
    forkable: ForkableRuns, openai_server: OpenAIServer, project: str
) -> None:
    openai_server.script(contains="Step 1", content="One boat.")
    openai_server.script(contains="Step 2", content="Two boats.", times=2)
    spec = parse_agent(None, {"topic": "boats"}, graph=f"{project}/steps")
    run = await forkable.start({"topic": "boats"})
    await forkable.run(run, spec)
    made = [one for one in await forkable.checkpoints(run) if one["next"] == ["second"]]
    assert len(made) == 1
    await forkable.end(run)

    new = await forkable.fork(run, checkpoint_id=made[0]["checkpoint_id"], values={"answers": ["Mine."]})
    result = await forkable.run(new, spec)
    assert result["output"]["answers"] == ["One boat.", "Mine.", "Two boats."]
    assert result["output"]["notes"] == [{"text": "first"}, {"text": "after first"}]
    assert "Mine." in openai_server.requests[-1].prompt
    assert len(openai_server.requests) == 3
