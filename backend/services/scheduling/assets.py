"""The assets that a schedule waits for, as Airflow knows them."""

from collections.abc import Mapping, Sequence

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.problems import FieldError, Forbidden, Invalid, pointer
from backend.core.roles import Principal
from backend.services.triggering.catalog import refusal, unreachable


class Assets:
    """Looks assets up with the user's own rights in Airflow."""

    def __init__(self, airflow: AirflowClient) -> None:
        self._airflow = airflow

    async def find(
        self, who: Principal, given: Sequence[str], known: Sequence[Mapping[str, str]], place: str
    ) -> list[dict[str, str]]:
        """The name and URI of each asset, which is given by either; those that are `known` aren't looked up again.

        Raises `Invalid` for one that Airflow doesn't have.
        """
        within = place if place == "/assets" else f"{place}/assets"
        found = [await self._find(who, one, known, within + pointer(index)) for index, one in enumerate(given)]
        return list({asset["uri"]: asset for asset in found}.values())

    async def _find(self, who: Principal, given: str, known: Sequence[Mapping[str, str]], place: str) -> dict[str, str]:
        for asset in known:
            if given in (asset["uri"], asset["name"]):
                return dict(asset)
        try:
            assets = [
                *await self._airflow.find_assets(uri=given, token=who.airflow_token),
                *await self._airflow.find_assets(name=given, token=who.airflow_token),
            ]
        except AirflowRefused as refused:
            if refused.status == 403:
                raise Forbidden("Airflow does not permit this user to read assets.") from refused
            raise refusal(refused, "There are no assets.") from refused
        except AirflowUnavailable as error:
            raise unreachable() from error
        for asset in assets:
            if given in (asset["uri"], asset["name"]):
                return {"name": asset["name"], "uri": asset["uri"]}
        detail = f"Airflow knows no asset {given!r}; a DAG has to name it among its outlets first"
        raise Invalid(f"{place}: {detail}", errors=[FieldError(place, detail)])
