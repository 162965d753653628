"""`/tokens`: service tokens, with which machines use the API."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from backend.api.deps import Name, Services, SignedIn
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.tokens import CreatedToken, NewToken, TokenList, TokenOut
from backend.core.problems import Forbidden
from backend.core.roles import Role
from backend.db.rows import Row

router = APIRouter(prefix="/tokens", tags=["tokens"], route_class=JsonRoute)


@router.get("")
async def list_tokens(
    who: SignedIn,
    services: Services,
    user_id: Annotated[Name, Query(description="Another user's tokens; for Admins")] = None,
    everyone: Annotated[bool, Query(description="The tokens of all users; for Admins")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> TokenList:
    """Your service tokens, newest first, with those that have expired or were revoked.

    A service token can't list tokens.
    """
    if (everyone or user_id not in (None, who.username)) and who.role < Role.ADMIN:
        raise Forbidden("Only an Admin may see the tokens of others.")
    owner = user_id if everyone else user_id or who.username
    page = await services.service_tokens.list_page(owner, cursor=cursor, limit=limit)
    return TokenList(tokens=[TokenOut.model_validate(_out(row)) for row in page.rows], next_cursor=page.next_cursor)


@router.post("", status_code=201)
async def create_token(body: NewToken, who: SignedIn, services: Services, response: Response) -> CreatedToken:
    """Create a service token. The response shows it, and nothing ever does again.

    It never permits more than its creator may do at the time of a request: it loses rights with its creator, and dies
    with the creator's account. A service token can't create tokens.
    """
    token, row = await services.service_tokens.create(who, body.name, body.scopes, body.dag_ids, body.expires_in_days)
    response.headers["Cache-Control"] = "no-store"
    return CreatedToken.model_validate({**_out(row), "token": token})


@router.delete("/{token_id}")
async def revoke_token(token_id: Annotated[str, Path(max_length=100)], who: SignedIn, services: Services) -> TokenOut:
    """Revoke a service token of yours or, as an Admin, of anybody. Revoking a revoked one changes nothing.

    The process that answers refuses the token at once, and others within `VISUAL_AI_ACCOUNT_CHECK_INTERVAL`.
    """
    return TokenOut.model_validate(_out(await services.service_tokens.revoke(who, token_id)))


def _out(row: Row) -> dict[str, object]:
    return {**row, "id": str(row["id"])}
