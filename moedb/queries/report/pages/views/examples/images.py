"""The images of a run as a page shows them, and what became of each beside its decisions.

Images of one size stand side by side in sheets, in rows from left to right, and a sheet is a JPEG:
ten thousand of them would else be ten thousand files, and take four times the room. The array has
each pixel exactly.
"""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moedb.errors import ArrayNotFoundError
from moedb.queries.report.pages.asking import Json
from moedb.queries.report.pages.columns import numbers, texts
from moedb.queries.report.pages.subject import Subject
from moedb.schemas.arrays import IMAGES, INPUT_LAYER
from moedb.store.reading.snapshot import RunSnapshot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ACROSS = 16
"""Images of a row of a sheet, and rows of a sheet."""

QUALITY = 95
"""Of the JPEG, whose colours are not thinned out."""

_READ_ROWS = 4096
"""Rows of the array that are read together."""

_ANSWERS = """
select predictions.example_id, predictions.predicted, predictions.correct,
    predictions.target_logprob
from predictions
where predictions.run_id = cast($run as varchar)
    and predictions.condition_id = 0
    and predictions.example_id between cast($first as integer) and cast($last as integer)
order by predictions.example_id
""".strip()
_PROBABILITIES = """
select router_mass.example_id, router_mass.expert, router_mass.probability
from router_mass
where router_mass.run_id = cast($run as varchar)
    and router_mass.layer = cast($layer as integer)
    and router_mass.example_id between cast($first as integer) and cast($last as integer)
order by router_mass.example_id, router_mass.expert
""".strip()
_NORMS = """
select routing.output_norm
from routing
join tokens using (run_id, token_idx)
where routing.run_id = cast($run as varchar)
    and routing.layer = cast($layer as integer)
    and tokens.example_id between cast($first as integer) and cast($last as integer)
order by tokens.example_id, tokens.position, routing.rank
""".strip()


def has_images(run: RunSnapshot) -> bool:
    """Whether a run keeps the images that its model was given."""
    return IMAGES in run.manifest.arrays


def sheets_of(subject: Subject, array_rows: Sequence[int | None]) -> Json | None:
    """Return images as sheets, in an order; None where the run keeps none.

    Parameters
    ----------
    subject
        The run.
    array_rows
        Of each image its row in the array; None leaves its place empty.
    """
    shape = subject.run.manifest.image_shape
    if not has_images(subject.run) or shape is None:
        return None
    height, width, _ = shape
    pixels = _pixels(subject, array_rows)
    each = ACROSS * ACROSS
    parts = [pixels[first : first + each] for first in range(0, len(pixels), each)]
    return {
        "height": height,
        "width": width,
        "across": ACROSS,
        "sheets": [base64.b64encode(_sheet(part)).decode("ascii") for part in parts],
        "is_there": numbers(_flags(array_rows)),
    }


def outcomes_of(subject: Subject, asked: dict[str, Any], example_ids: Sequence[int]) -> Json | None:
    """What the untouched model answered to each example, in an order; None where none is kept.

    Parameters
    ----------
    subject
        The run.
    asked
        The run and the first and the last example, for SQL.
    example_ids
        The examples.
    """
    import numpy as np

    rows = subject.database.sql(_ANSWERS, asked).fetchall()
    if not rows:
        return None
    found = {row[0]: row[1:] for row in rows}
    lacking = (None, None, None)
    answers = [found.get(example, lacking) for example in example_ids]
    logprobs = [np.nan if row[2] is None else row[2] for row in answers]
    return {
        "predicted": texts([row[0] for row in answers]),
        "correct": numbers(np.array([2 if row[1] is None else row[1] for row in answers])),
        "target_logprob": numbers(np.array(logprobs, dtype=np.float32)),
        "sql": _ANSWERS,
    }


def scores_of(subject: Subject, here: dict[str, Any], n_images: int, n_experts: int) -> Json:
    """Of each decision the norm of the expert's output; of each image what the router gives all.

    Parameters
    ----------
    subject
        The run.
    here
        The run, the layer and the first and the last example, for SQL.
    n_images, n_experts
        How many there are.
    """
    norms = subject.database.sql(_NORMS, here).arrow()["output_norm"]
    given = subject.database.sql(_PROBABILITIES, here).arrow()["probability"]
    is_whole = len(given) == n_images * n_experts
    return {
        "norm": None if norms.null_count else numbers(norms.to_numpy()),
        "probability": numbers(given.to_numpy()) if is_whole else None,
    }


def _flags(array_rows: Sequence[int | None]) -> "NDArray[np.uint8]":
    import numpy as np

    return np.array([row is not None for row in array_rows], dtype=np.uint8)


def _pixels(subject: Subject, array_rows: Sequence[int | None]) -> "NDArray[np.uint8]":
    """(image, height, width, channel): black where an image is not kept."""
    import numpy as np

    run = subject.run
    shape = run.manifest.image_shape
    if shape is None:
        raise ArrayNotFoundError(f"run {run.run_id} keeps no images")
    stored = subject.database.array(run.run_id, IMAGES, INPUT_LAYER)
    pixels = np.zeros((len(array_rows), *shape), dtype=np.uint8)
    wanted = np.array([-1 if row is None else row for row in array_rows], dtype=np.int64)
    order = np.argsort(wanted, kind="stable")
    order = order[wanted[order] >= 0]
    for first in range(0, len(order), _READ_ROWS):
        places = order[first : first + _READ_ROWS]
        rows, again = np.unique(wanted[places], return_inverse=True)
        values = np.asarray(stored.oindex[rows]).reshape(len(rows), *shape)
        pixels[places] = np.nan_to_num(values[again]).clip(0, 255).astype(np.uint8)
    return pixels


def _sheet(images: "NDArray[np.uint8]") -> bytes:
    """Images side by side, as a JPEG."""
    import numpy as np
    from PIL import Image

    n, height, width, channels = images.shape
    n_rows = -(-n // ACROSS)
    filled = np.zeros((n_rows * ACROSS, height, width, channels), dtype=np.uint8)
    filled[:n] = images
    sheet = filled.reshape(n_rows, ACROSS, height, width, channels).transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(n_rows * height, ACROSS * width, channels)
    written = io.BytesIO()
    picture = Image.fromarray(sheet if channels == 3 else sheet[:, :, 0])
    picture.save(written, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return written.getvalue()
