"""Names for the documents' code blocks, so that a test can check that each block has a test."""

from dataclasses import dataclass

from tests.kit.documents.pages import DOCUMENTS, Block


@dataclass(frozen=True)
class Snippet:
    """Identifies a block: the one in this document and language that contains the text or, if `whole`, equals it."""

    document: str
    language: str
    containing: str
    whole: bool = False

    def matches(self, block: Block) -> bool:
        """Whether this is the block."""
        if (block.document, block.language) != (self.document, self.language):
            return False
        return block.text == self.containing if self.whole else self.containing in block.text


README, AGENTS, API, OPERATIONS = "README.md", "docs/agents.md", "docs/api.md", "docs/operations.md"
CONTRIBUTING = "CONTRIBUTING.md"

SNIPPETS = {
    "up": Snippet(README, "bash", "make up\n", whole=True),
    "trigger": Snippet(README, "bash", "/workflows/trigger"),
    "watch": Snippet(README, "bash", "/workflow-status/stream/"),
    "env": Snippet(README, "env", "AIRFLOW_UID"),
    "status-down": Snippet(README, "bash", "make down"),
    "compose-up": Snippet(README, "bash", "up -d"),
    "tree": Snippet(README, "text", "langgraph-flow/"),
    "store-terms": Snippet(AGENTS, "json", '"store": {'),
    "flow-toml": Snippet(AGENTS, "toml", "[flow]"),
    "python-client": Snippet(README, "python", "httpx.post"),
    "event-source": Snippet(README, "javascript", "EventSource"),
    "activate": Snippet(README, "bash", "bin/activate"),
    "doctor": Snippet(README, "bash", "python -m backend doctor"),
    "commands": Snippet(README, "bash", "python -m backend watch"),
    "operators": Snippet(README, "python", "single_agent = "),
    "monitoring": Snippet(README, "bash", "/monitoring/workflow-metrics"),
    "usage-query": Snippet(README, "sql", "visual_ai.agent_traces"),
    "psql": Snippet(README, "bash", "PGPASSWORD"),
    "compose-psql": Snippet(README, "bash", "exec postgres psql"),
    "new-dag": Snippet(README, "python", "my_custom_workflow"),
    "airflow-commands": Snippet(README, "bash", 'make airflow ARGS="dags test'),
    "compose-airflow": Snippet(README, "bash", "exec airflow-webserver airflow dags test"),
    "checks": Snippet(README, "bash", "make lint"),
    "errors-query": Snippet(README, "sql", "visual_ai.workflow_errors"),
    "images": Snippet(README, "bash", "docker build"),
    "values": Snippet(README, "yaml", "KubernetesExecutor"),
    "kubernetes": Snippet(README, "bash", "helm upgrade"),
    "compose-logs": Snippet(README, "bash", "logs airflow-webserver"),
    "import": Snippet(AGENTS, "python", "import LangGraphOperator, MultiAgentOperator"),
    "questions": Snippet(AGENTS, "python", "questions="),
    "tools": Snippet(AGENTS, "python", "my_package.orders:refund"),
    "question-mail": Snippet(AGENTS, "python", "SmtpNotifier("),
    "own-graph": Snippet(AGENTS, "python", "my_package.agents:build_graph"),
    "team": Snippet(AGENTS, "python", "depends_on"),
    "typed": Snippet(AGENTS, "python", "output_schema="),
    "batch": Snippet(AGENTS, "python", "max_concurrency"),
    "error-policy": Snippet(AGENTS, "python", "error_policy="),
    "budget": Snippet(AGENTS, "python", "budget="),
    "limits-query": Snippet(AGENTS, "sql", "visual_ai.model_limits"),
    "airflows-ways": Snippet(AGENTS, "python", "@task.langgraph"),
    "template": Snippet(API, "bash", "localhost:8000/templates"),
    "schedule": Snippet(API, "bash", "/schedule"),
    "limit": Snippet(API, "bash", "/limits/ulla-daily"),
    "preferences": Snippet(API, "bash", "/users/me/preferences"),
    "langgraph-client": Snippet(API, "python", "from langgraph_sdk"),
    "conversation": Snippet(AGENTS, "python", "thread="),
    "signature": Snippet(API, "python", "def is_genuine"),
    "notifier": Snippet(API, "python", "VisualAINotifier"),
    "langfuse-env": Snippet(OPERATIONS, "env", "LANGFUSE_PUBLIC_KEY"),
    "limit-commands": Snippet(OPERATIONS, "bash", "backend limits set"),
    "flow-user": Snippet(OPERATIONS, "bash", "airflow roles create"),
    "ports": Snippet(OPERATIONS, "bash", "VISUAL_AI_AIRFLOW_PORT=8180"),
    "set-up": Snippet(CONTRIBUTING, "bash", "make install"),
    "generated-client": Snippet(CONTRIBUTING, "bash", "backend openapi"),
    "flow-diagram": Snippet("docs/architecture.md", "mermaid", "flowchart"),
    "places": Snippet("docs/architecture.md", "", "database/migrations/"),
}


def found(name: str) -> list[Block]:
    """Return the blocks that a name matches: exactly one, if the documents are right."""
    return [block for document in DOCUMENTS for block in document.blocks if SNIPPETS[name].matches(block)]


def snippet(name: str) -> str:
    """Return a block's code. Tests pass the name as a literal, which is how a block without a test is found."""
    (block,) = found(name)
    return block.text
