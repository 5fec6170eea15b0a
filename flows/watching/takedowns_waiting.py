"""Take-downs that wait for a build: what `status` and `metrics` ask, without the weight of what takes down."""

from typing import Any

from flows.workspace import Workspace
from pipelines.takedown.certificate import uncertified
from pipelines.takedown.ledger import read_ledger


def waiting(place: Workspace) -> list[dict[str, Any]]:
    """Take-downs in force that the newest build of a recipe has not certified: id, since when, and the recipe.

    Where none was built yet, the recipe is None. Raises IntegrityError for a damaged ledger.
    """
    requests = read_ledger(place.takedown_ledger)
    built = sorted(path.parent.name for path in (place.root / "reports").glob("*/data_card.json"))
    return [
        {"id": request.id, "added_at": request.added_at, "recipe": recipe or None}
        for recipe in built or [""]
        for request in uncertified(place.takedown_folder, requests, recipe)
    ]
