"""The operators as a DAG's author uses them, on the real Airflow SDK."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from visual_ai_operators import LangGraphOperator, MultiAgentOperator

ROOT = Path(__file__).parents[3]
HEAVY = (
    "langgraph", "langchain", "langchain_core", "langchain_openai", "langfuse", "openai", "onnxruntime", "rapidocr",
    "numpy", "PIL", "psycopg", "psycopg2", "sumy", "fastapi", "backend.db", "backend.runtime.runner",
)  # fmt: skip
TEXT = {"type": "text"}
NUMBERS = count()


@pytest.fixture(autouse=True)
def dag() -> Iterator[DAG]:
    """The DAG that the operators of a test belong to."""
    with DAG("test", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
        yield dag


def single(**changes: Any) -> LangGraphOperator:
    return LangGraphOperator(**{"task_id": f"task_{next(NUMBERS)}", "agent_config": TEXT, **changes})


def team(**changes: Any) -> MultiAgentOperator:
    return MultiAgentOperator(**{"task_id": f"task_{next(NUMBERS)}", "agents": [{"name": "a", **TEXT}], **changes})


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: single(agent_config={"type": "visoin"}), "agent_config.type"),
        (lambda: single(agent_config=["vision"]), "agent_config"),
        (lambda: single(agent_config={"type": "vision", "temprature": 1}), "agent_config"),
        (lambda: single(input_data="text"), "input_data"),
        (lambda: single(input_data={"query": "no text"}), "input_data"),
        (lambda: single(agent_config={"type": "vision"}, input_data={"query": "?"}), "input_data"),
        (lambda: single(model=4), "model"),
        (lambda: single(timeout=0), "timeout"),
        (lambda: single(timeout="1h"), "timeout"),
        (lambda: team(agents=[]), "agents"),
        (lambda: team(agents="text"), "agents"),
        (lambda: team(agents=[TEXT]), "agents[0].name"),
        (lambda: team(agents=[{"name": "a", **TEXT}, {"name": "a", **TEXT}]), "agents[1].name"),
        (lambda: team(agents=[{"name": "a", **TEXT, "input_data": {"query": "no text"}}]), "agents[0].input_data"),
        (lambda: team(agents=[{"name": "a", **TEXT, "model": 1}]), "agents[0].model"),
        (lambda: team(orchestration_mode="circular"), "orchestration_mode"),
        (lambda: team(model=4), "model"),
        (lambda: team(synthesis="yes"), "synthesis"),
        (lambda: team(synthesis={"tone": "warm"}), "synthesis"),
        (lambda: team(synthesis={"model": 3}), "synthesis.model"),
    ],
)
def test_a_wrong_argument_fails_when_the_dag_is_parsed(make: Callable[[], Any], argument: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        make()
    assert str(raised.value).startswith(f"{argument}: ")


def test_a_missing_argument_is_named() -> None:
    several: Any = MultiAgentOperator
    with pytest.raises(TypeError, match="agents"):
        several(task_id="work")
    with pytest.raises(ValueError, match=r"agent_config: is missing; give agent_config=.* or graph="):
        LangGraphOperator(task_id="work")


def test_the_guides_snippets() -> None:
    one = LangGraphOperator(
        task_id="vision_agent",
        agent_config={"type": "vision"},
        input_data={"image_url": "{{ dag_run.conf.image_url }}", "query": "{{ dag_run.conf.query }}"},
        retries=3,
        retry_delay=timedelta(minutes=5),
    )
    several = MultiAgentOperator(
        task_id="multi_agent",
        agents=[
            {"name": "vision_agent", "type": "vision", "input_data": {...}},
            {"name": "text_agent", "type": "text", "input_data": {...}},
        ],
        orchestration_mode="parallel",
    )
    one >> several
    assert one.retries == 3
    assert several.upstream_task_ids == {"vision_agent"}


@pytest.mark.parametrize("given", [None, ..., {...}])
def test_an_ellipsis_is_the_runs_own_input(given: Any) -> None:
    assert single(input_data=given).input_data is None
    assert team(agents=[{"name": "a", **TEXT, "input_data": given}]).agents == [
        {"name": "a", "type": "text", "input_data": None}
    ]


def test_a_follower_may_get_its_text_from_those_before_it() -> None:
    agents = [
        {"name": "eyes", "type": "vision", "input_data": {"image_url": "https://example.com/a.png"}},
        {"name": "words", "type": "text", "input_data": {"query": "What does it say?"}},
    ]
    assert team(agents=agents, orchestration_mode="sequential")
    assert team(agents=agents, orchestration_mode="{{ params.mode }}")
    with pytest.raises(ValueError, match=r"agents\[1\]\.input_data"):
        team(agents=agents, orchestration_mode="parallel")


def test_templates_are_rendered_in_every_argument() -> None:
    context: Any = {"params": {"kind": "text", "said": "hello", "model": "local:text", "mode": "sequential"}}
    one = single(
        agent_config={"type": "{{ params.kind }}", "system_prompt": "Say {{ params.said }}"},
        input_data={"text": "{{ params.said }}", "inner": ["{{ params.kind }}"]},
        model="{{ params.model }}",
    )
    one.render_template_fields(context)
    assert one.agent_config == {"type": "text", "system_prompt": "Say hello"}
    assert (one.input_data, one.model) == ({"text": "hello", "inner": ["text"]}, "local:text")

    several = team(
        agents=[
            {"name": "{{ params.said }}", "type": "{{ params.kind }}", "input_data": {"text": "{{ params.said }}"}}
        ],
        orchestration_mode="{{ params.mode }}",
        model="{{ params.model }}",
        synthesis={"system_prompt": "{{ params.said }}"},
    )
    several.render_template_fields(context)
    assert several.agents == [{"name": "hello", "type": "text", "input_data": {"text": "hello"}}]
    assert (several.orchestration_mode, several.model) == ("sequential", "local:text")
    assert several.synthesis == {"system_prompt": "hello"}


def test_other_tasks_results_are_accepted() -> None:
    @task
    def before() -> dict[str, Any]:
        return {}

    given: Any = before()
    one = single(agent_config=given, input_data=given["inner"])
    several = team(agents=given, synthesis=False)
    nested = single(input_data={"text": given["text"]})
    assert all(operator.upstream_task_ids == {"before"} for operator in (one, several, nested))


def test_what_a_batch_needs_may_come_from_other_tasks() -> None:
    @task
    def before() -> dict[str, Any]:
        return {}

    given: Any = before()
    batch = single(inputs=given["inputs"], budget=given["budget"], results_path=given["path"], input_data=None)
    assert batch.upstream_task_ids == {"before"}


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_users_graph_takes_no_schema(deferrable: bool) -> None:
    @task
    def before() -> dict[str, Any]:
        return {}

    refused = r"output_schema: is not for a graph of one's own, whose output has its own form"
    own: Any = {"graph": "package.module:graph", "output_schema": {"type": "object"}}
    for given in ({"text": "a"}, None, before()):
        with pytest.raises(ValueError, match=f"^{refused}"):
            LangGraphOperator(task_id=uuid4().hex, input_data=given, deferrable=deferrable, **own)
    with pytest.raises(ValueError, match=rf"^agents\[0\]\.{refused}"):
        team(agents=[{"name": "a", **own}], deferrable=deferrable)


def test_checkpoint_is_a_flag() -> None:
    with pytest.raises(ValueError, match=r"^checkpoint: must be True or False, not 'no'"):
        single(checkpoint="no")
    with pytest.raises(ValueError, match=r"^agent_config.checkpoint: is an argument of the operator"):
        single(agent_config={**TEXT, "checkpoint": False})


def test_durability_is_one_of_langgraphs() -> None:
    assert [single(durability=given).durability for given in (None, "sync", "exit")] == ["async", "sync", "exit"]
    with pytest.raises(ValueError, match=r"^durability: must be 'async', 'sync' or 'exit', not 'never'"):
        single(durability="never")
    with pytest.raises(ValueError, match=r"^durability: has no effect with checkpoint=False"):
        single(durability="exit", checkpoint=False)
    with pytest.raises(ValueError, match=r"^agent_config.durability: is an argument of the operator"):
        single(agent_config={**TEXT, "durability": "exit"})


def test_a_mapped_operator(dag: DAG) -> None:
    LangGraphOperator.partial(task_id="each", agent_config=TEXT).expand(input_data=[{"text": "a"}, {"text": "b"}])
    assert dag.get_task("each").is_mapped


@pytest.mark.parametrize(
    ("operator", "field"),
    [
        (lambda: single(agent_config={"type": "{{ params.kind }}"}), "agent_config.type"),
        (lambda: team(orchestration_mode="{{ params.kind }}"), "orchestration_mode"),
        (lambda: team(agents=[{"name": "a", "type": "{{ params.kind }}"}]), r"agents\[0\].type"),
    ],
)
def test_arguments_known_at_run_time_fail_then_without_a_retry(operator: Callable[[], Any], field: str) -> None:
    made = operator()
    made.render_template_fields({"params": {"kind": "visoin"}})
    with pytest.raises(AirflowFailException, match=f"{field}: .*visoin"):
        made.execute({})


def python(*arguments: str, **environment: str) -> str:
    """The output of a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'airflow/plugins'}", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_parsing_imports_nothing_heavy(tmp_path: Path) -> None:
    script = f"""if True:
        import json, sys
        import visual_ai_notifiers, visual_ai_operators
        operators = [name for name in {HEAVY!r} if name in sys.modules]
        sys.path.insert(0, "airflow/dags")
        import multi_agent_dag, visual_ai_workflow_dag
        dags = [name for name in {HEAVY!r} if name in sys.modules]
        params = [sorted(module.dag.params) for module in (visual_ai_workflow_dag, multi_agent_dag)]
        print(json.dumps([operators, dags, params]))
    """
    operators, dags, params = json.loads(python("-c", script, AIRFLOW_HOME=str(tmp_path)))
    assert operators == []
    assert dags == []
    assert params == [["image_url", "query"], [
        "agents", "error_policy", "image_url", "max_steps", "orchestration_mode", "query", "supervisor", "synthesis",
        "text",
    ]]  # fmt: skip


def test_the_dags_are_parsed_by_airflow(tmp_path: Path) -> None:
    script = """if True:
        import json
        from airflow.dag_processing.dagbag import DagBag
        bag = DagBag("airflow/dags", bundle_name="test")
        print("@" + json.dumps([bag.import_errors, {name: sorted(dag.task_ids) for name, dag in bag.dags.items()}]))
    """
    (tmp_path / "schedules.json").write_text("[]")  # what is known of schedules while the database is away
    # Airflow itself warns while it parses; what it parses may not.
    printed = python("-W", "default", "-c", script, AIRFLOW_HOME=str(tmp_path), AIRFLOW__CORE__LOAD_EXAMPLES="False")
    errors, dags = json.loads(printed.rpartition("@")[2])
    assert errors == {}
    assert dags == {
        "multi_agent_workflow": ["run_agents", "store_result", "validate_input"],
        "visual_ai_maintenance": ["prune_checkpoints"],
        "visual_ai_schedules": [],
        "visual_ai_workflow": ["analyse_image", "store_result", "validate_input"],
    }


def test_a_runs_params_reach_the_team_unrendered(tmp_path: Path) -> None:
    given = {
        "orchestration_mode": "supervisor",
        "synthesis": {"system_prompt": "{{ 7 * 7 }}"},
        "supervisor": {"timeout": 3, "system_prompt": "{'a': 1}"},
        "max_steps": 5,
        "error_policy": None,
    }
    script = f"""if True:
        import json, sys
        sys.path.insert(0, "airflow/dags")
        from multi_agent_dag import dag
        task, given = dag.get_task("run_agents"), {given!r}
        environment = task.get_template_env(dag)
        rendered = {{key: task.render_template(getattr(task, key), {{"params": given}}, environment) for key in given}}
        print("@" + json.dumps(rendered))
    """
    printed = python("-W", "default", "-c", script, AIRFLOW_HOME=str(tmp_path))
    assert json.loads(printed.rpartition("@")[2]) == given
