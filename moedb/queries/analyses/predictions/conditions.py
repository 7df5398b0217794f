"""The conditions that interventions make: what tells them apart, and which belong together."""

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from moedb.queries.analyses.analysis import AnalysisColumn
from moedb.queries.questions.parameters import Parameter

if TYPE_CHECKING:
    import pandas as pd

_DRAW = ("seed", "draw")

SPLIT_OF_TWINS = Parameter(
    "split",
    "varchar",
    None,
    False,
    "the examples' split; null is all but corrupted, and for patch and swap-routing every one, "
    "as their corrupted examples get values of the clean ones; all is every one",
)
KIND = Parameter(
    "kind", "varchar", None, False, "kinds of interventions, commas between; all when null"
)
CONDITION_COLUMNS = (
    AnalysisColumn("kind", "what was changed", "VARCHAR"),
    AnalysisColumn("layer", "the layer it was changed at; null for several", "INTEGER"),
    AnalysisColumn("expert", "the expert; null for none or several", "INTEGER"),
    AnalysisColumn("params", "further parameters, as JSON; seed and draw left out", "VARCHAR"),
    AnalysisColumn("split", "the split of the examples that were changed", "VARCHAR"),
)
N_CONDITIONS = AnalysisColumn(
    "n_conditions",
    "conditions behind the row: draws of a random one, over which an example's values are averaged "
    "first",
    "BIGINT",
)


class Condition(NamedTuple):
    """What the rows of one group are about: the columns that begin a row of a result."""

    kind: str
    layer: int | None
    expert: int | None
    params: str
    split: str


def condition_of(rows: "pd.DataFrame") -> Condition:
    """Return what the rows of one group, as :func:`grouped` numbers them, are about."""
    first = rows.iloc[0]
    return Condition(
        kind=str(first["kind"]),
        layer=_whole(first["layer"]),
        expert=_whole(first["expert"]),
        params=str(first["params"]),
        split=str(first["split"]),
    )


def grouped(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Put together what belongs together of the rows that conditions gave.

    The column ``group`` numbers it: draws of one condition, and of these the examples of one split.
    Of a condition that several runs have, the first run's rows are kept.

    Parameters
    ----------
    rows
        With the columns run_id, kind, layer, expert, params and split; the newest run's first.
    """
    params = {text: _without_draw(text) for text in rows["params"].unique()}
    rows = rows.assign(params=rows["params"].map(params))
    rows["group"] = rows.groupby(list(Condition._fields), sort=False, dropna=False).ngroup()
    if rows.empty:
        return rows
    return rows[rows["run_id"] == rows.groupby("group")["run_id"].transform("first")]


def describe(params: str) -> str:
    """Return the parameters of a condition as words.

    Examples
    --------
    >>> describe('{"form": "zero", "roles": ["end", "s2"]}')
    'zero end+s2'
    """
    values = json.loads(params or "{}")
    return " ".join(
        "+".join(map(str, value)) if isinstance(value, list) else str(value)
        for value in values.values()
    )


def _without_draw(text: str) -> str:
    params = json.loads(text or "{}")
    return json.dumps({k: v for k, v in params.items() if k not in _DRAW}, sort_keys=True)


def _whole(value: Any) -> int | None:
    """A number of a frame's nullable column of whole numbers."""
    import pandas as pd

    return None if pd.isna(value) else int(value)
