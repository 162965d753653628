"""Settings for all tests; the fixtures are in `tests/kit/fixtures`."""

import os

from tests.kit.processes.reaper import disposable_folder

pytest_plugins = (
    "tests.kit.distribution",
    "tests.kit.fixtures.application",
    "tests.kit.fixtures.forks",
    "tests.kit.fixtures.projects",
    "tests.kit.fixtures.servers",
    "tests.kit.fixtures.tasks",
)

# Airflow reads this variable when it is imported, and would otherwise write to the home directory of the user. Workers
# of pytest-xdist have inherited the variable of the process that started them, and each needs a folder of its own.
if "AIRFLOW_HOME" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["AIRFLOW_HOME"] = str(disposable_folder("airflow"))
