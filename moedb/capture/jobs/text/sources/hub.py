"""Datasets of the Hugging Face hub, streamed: nothing is downloaded as a whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moedb.capture.jobs.text.sources.rows import Row, Source
from moedb.capture.models.hub import hub_failure, tidy_output
from moedb.errors import DatasetError

DEFAULT_SPLIT = "train"
_LOCAL_WAY = "a file needs no hub: --dataset FILE.parquet (.jsonl, .csv, .txt, .conllu)"


@dataclass(frozen=True)
class HubSource(Source):
    """A split of a dataset on the hub.

    The values are what ``datasets`` makes of them: it takes text in JSON lines that looks like a
    date for a date, which becomes a label such as ``2024-03-01T00:00:00``.

    Attributes
    ----------
    id
        The dataset, such as ``stanfordnlp/imdb``.
    subset
        One of its configurations, where it has several.
    hub_split
        The split.
    revision
        The hub's commit, where it could be asked for.
    dataset
        What ``datasets`` made of it: an iterable dataset.
    """

    id: str
    subset: str | None
    hub_split: str
    revision: str | None
    dataset: Any

    @property
    def name(self) -> str:
        """The hub id, with the subset if there is one."""
        return self.id if self.subset is None else f"{self.id} {self.subset}"

    @property
    def split(self) -> str:
        """The split."""
        return self.hub_split

    @property
    def config(self) -> Mapping[str, Any]:
        """Id, subset, split and commit."""
        return {
            "hub": self.id,
            "subset": self.subset,
            "split": self.hub_split,
            "revision": self.revision,
        }

    def columns(self) -> tuple[str, ...] | None:
        """The columns, where the hub knows them."""
        names = self.dataset.column_names
        return None if names is None else tuple(names)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Stream the rows; class labels come as their names."""
        known = self.columns()
        stream = self.dataset
        if known is not None:
            stream = stream.select_columns([name for name in known if name in set(columns)])
        names = {
            column: found
            for column, feature in (stream.features or {}).items()
            if (found := _class_names(feature)) is not None
        }
        rows = iter(stream)
        number = 0
        while True:
            try:
                values = next(rows, None)
            except Exception as error:  # every way in which a network or a format can fail
                failure = hub_failure(error, self.id, "dataset")
                raise failure.dataset_error(
                    f"{self.id}, split {self.hub_split}, row {number}: {failure.reason}",
                    f"try again, or download it; {_LOCAL_WAY}",
                ) from error
            if values is None:
                return
            named = {key: _named(values[key], names[key]) for key in names if key in values}
            yield Row(number, f"{self.id}, row {number}", {**values, **named})
            number += 1


def open_hub(dataset_id: str, *, split: str | None = None, subset: str | None = None) -> HubSource:
    """Open a dataset of the hub as a stream.

    Parameters
    ----------
    dataset_id
        Such as ``stanfordnlp/imdb``.
    split
        One of its splits; None for ``train``.
    subset
        One of its configurations, where it has several.

    Raises
    ------
    DatasetError
        If the library ``datasets`` is not installed, or the hub does not give the dataset.
    """
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(
            f"--dataset {dataset_id} is no file here, and a dataset of the hub needs the library "
            "datasets, which is not installed",
            f"pip install 'moedb[hub]'; {_LOCAL_WAY}",
        ) from error
    tidy_output()
    chosen = split or DEFAULT_SPLIT
    revision = _revision(dataset_id)
    try:
        found = datasets.load_dataset(
            dataset_id, subset, split=chosen, streaming=True, revision=revision
        )
    except Exception as error:  # every way in which a network can fail, or a part be wrong
        failure = hub_failure(error, dataset_id, "dataset")
        part = f"split {chosen}" + (f" of subset {subset}" if subset is not None else "")
        raise failure.dataset_error(
            f"--dataset {dataset_id} is no file here, and the hub did not give {part} of such a "
            f"dataset: {failure.reason}",
            f"--split and --subset choose a part; {_LOCAL_WAY}",
        ) from error
    return HubSource(dataset_id, subset, chosen, revision, found)


def _revision(dataset_id: str) -> str | None:
    """The commit that the hub has now; None offline, where ``datasets`` may have a copy.

    Raises
    ------
    DatasetError
        If the hub does not say: a run must not lose its revision to a moment without network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return HfApi().dataset_info(dataset_id).sha
    except OfflineModeIsEnabled:
        return None
    except Exception as error:  # every way in which a network can fail, or an id be wrong
        failure = hub_failure(error, dataset_id, "dataset")
        raise failure.dataset_error(
            f"--dataset {dataset_id} is no file here, and {failure.reason}", _LOCAL_WAY
        ) from error


def _class_names(feature: Any) -> Sequence[str] | None:
    """The names of a class label, or of a list of them."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return names if isinstance(names, list) else None


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value
