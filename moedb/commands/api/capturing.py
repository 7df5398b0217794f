"""Running models from Python: captures and interventions, each returning the name of its run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from moedb.commands.api.mirroring import check_mirror, mirrored
from moedb.commands.api.plans import in_bytes, options_of, plan_cifar, plan_text
from moedb.errors import UsageError

if TYPE_CHECKING:
    from moedb.capture.jobs.model_outline import ModelOutline
    from moedb.capture.pipeline.plan import CapturePlan
    from moedb.capture.tracing.logit_lens import Positions


class CaptureSettings(TypedDict, total=False):
    """What can be chosen about every capture; the command line's options say more of each.

    Attributes
    ----------
    arrays
        Arrays to keep, as ``NAME`` or ``NAME@LAYERS``, ``all`` or ``none``; empty for what fits.
    layers
        Layers whose arrays are kept, such as ``0,4-7``.
    tokens
        Tokens the arrays keep: ``all``, ``last``, ``label:KEY``, ``label:KEY=VALUE``.
    per_value
        The most tokens of each value of the label, and as many others of the same examples.
    batch_size
        Examples of a forward pass.
    dtype, device
        None for what suits the model and the machine.
    budget
        GB of arrays to keep where ``arrays`` is empty.
    expert_similarity
        What of every two experts of a layer is compared: ``weights``, or ``neurons`` too.
    name, note
        What the run is called, and what it is.
    """

    arrays: Sequence[str]
    layers: str
    tokens: str
    per_value: int | None
    batch_size: int
    dtype: str | None
    device: str | None
    budget: float
    expert_similarity: Literal["weights", "neurons"] | None
    name: str | None
    note: str | None


class LanguageModelSettings(CaptureSettings, total=False):
    """What can be chosen about a capture of a language model.

    Attributes
    ----------
    model
        The embedded model's name, a hub id, or a folder; or a model of transformers that is loaded,
        which runs as it is, and where it is.
    tokenizer
        The tokenizer of a model that is loaded.
    max_memory
        GB of weights to hold; a larger model is read layer by layer.
    device_map
        How the layers are spread over several GPUs.
    dense
        Whether it is a dense model: each feed-forward layer is a layer with one expert.
    """

    model: object
    tokenizer: object
    max_memory: float | None
    device_map: str | None
    dense: bool


def capture_ioi(
    store: str | Path | None = None,
    *,
    n: int = 100,
    seed: int = 0,
    templates: str | Path | None = None,
    twins: bool = True,
    lens: "Positions" = "last",
    mirror: str | Path | None = None,
    **settings: Unpack[LanguageModelSettings],
) -> str:
    """Run indirect object identification prompts through a language model.

    Parameters
    ----------
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    n
        Prompts, twins not counted.
    seed
        Seed of what is drawn.
    templates
        A JSON file of templates and words.
    twins
        Whether there are corrupted twins too.
    lens
        Tokens whose residual stream is read through the logit lens.
    mirror
        Another store, a folder or an address such as ``s3://bucket/store``, to which units are
        copied as they are committed. One that cannot be written to stops nothing: that is logged
        at the end.
    **settings
        See :class:`LanguageModelSettings` and :class:`CaptureSettings`.

    Returns
    -------
    str
        The run. The same call again resumes it, or does nothing.

    Raises
    ------
    MoedbError
        As the command ``moedb capture qwen-ioi`` says.

    Examples
    --------
    >>> import moedb
    >>> run = moedb.capture_ioi("moedb-store", n=20, name="first")  # doctest: +SKIP
    >>> moedb.open("moedb-store").query("ioi-logit-diff", run=run)  # doctest: +SKIP
    """
    from moedb.capture.jobs.qwen_ioi.job import plan_qwen_ioi

    place = _checked_store(store, mirror)
    with _with_model(settings) as (given, outline):
        dense = given.pop("dense", False)
        planned = plan_qwen_ioi(
            options_of(given),
            n=n,
            seed=seed,
            templates=None if templates is None else Path(templates),
            twins=twins,
            lens=lens,
            outline=outline,
            dense=dense,
        )
        return _run(planned, place, mirror)


def capture_text(
    dataset: str | Path,
    store: str | Path | None = None,
    *,
    split: str | None = None,
    subset: str | None = None,
    lines: bool = False,
    text_column: str = "text",
    label: Sequence[str] = (),
    words_column: str = "words",
    token_label: Sequence[str] = (),
    unaligned: Literal["fail", "skip", "join"] = "fail",
    max_length: int | None = None,
    stride: int | None = None,
    truncate: bool = False,
    max_examples: int | None = None,
    max_tokens: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    mirror: str | Path | None = None,
    **settings: Unpack[LanguageModelSettings],
) -> str:
    """Run texts through a language model.

    Parameters
    ----------
    dataset
        A file, a folder of files of one kind, or a hub id.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    split, subset
        Of a hub dataset.
    lines
        Whether each line of a ``.txt`` file is a document.
    text_column, words_column
        The columns of the texts, and of lists of words.
    label, token_label
        Columns that become labels of examples, and of tokens.
    unaligned
        What is done where words are not in the text.
    max_length, stride, truncate
        Tokens of an example at most, from one window to the next, and whether only the first
        window is kept.
    max_examples, max_tokens
        Where to stop.
    shuffle, seed
        Whether documents are shuffled, and how.
    mirror
        Another store, a folder or an address such as ``s3://bucket/store``, to which units are
        copied as they are committed. One that cannot be written to stops nothing: that is logged
        at the end.
    **settings
        See :class:`LanguageModelSettings` and :class:`CaptureSettings`.

    Returns
    -------
    str
        The run. The same call again resumes it, or does nothing.

    Raises
    ------
    MoedbError
        As the command ``moedb capture text`` says.
    """
    from moedb.capture.jobs.text.documents import TextColumns

    place = _checked_store(store, mirror)
    columns = TextColumns(text_column, tuple(label), words_column, tuple(token_label))
    with _with_model(settings) as (given, outline):
        dense = given.pop("dense", False)
        planned = plan_text(
            str(dataset),
            columns,
            given,
            outline,
            split=split,
            subset=subset,
            lines=lines,
            dense=dense,
            unaligned=unaligned,
            max_length=max_length,
            stride=stride,
            truncate=truncate,
            max_examples=max_examples,
            max_tokens=max_tokens,
            shuffle=shuffle,
            seed=seed,
        )
        return _run(planned, place, mirror)


def capture_cifar(
    model: str | Path | Sequence[str | Path] = "cifar-moe",
    store: str | Path | None = None,
    *,
    data: str | Path | None = None,
    n: int | None = None,
    draws: int = 10,
    seed: int = 0,
    mirror: str | Path | None = None,
    **settings: Unpack[CaptureSettings],
) -> list[str]:
    """Run CIFAR-10's test images through CIFAR MoEs, each model a run.

    Parameters
    ----------
    model
        A trained model's folder, or a folder of them; or several.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    data
        CIFAR-10; None for the hub's.
    n
        Only the first images; None for all.
    draws
        Random routers, and experts, to average over.
    seed
        Seed of what is drawn.
    mirror
        Another store, a folder or an address such as ``s3://bucket/store``, to which units are
        copied as they are committed. One that cannot be written to stops nothing: that is logged
        at the end.
    **settings
        See :class:`CaptureSettings`; a name is for one model.

    Returns
    -------
    list of str
        The runs, in the order of the models.

    Raises
    ------
    MoedbError
        As the command ``moedb capture cifar-moe`` says.
    """
    place = _checked_store(store, mirror)
    models = [model] if isinstance(model, str | Path) else model
    plans = plan_cifar(
        [Path(each) for each in models],
        {"batch_size": 250, **settings},
        data=None if data is None else Path(data),
        n=n,
        draws=draws,
        seed=seed,
    )
    return [_run(planned, place, mirror) for planned in plans]


def intervene(
    run: str,
    store: str | Path | None = None,
    *,
    kind: str | Sequence[str],
    layers: str = "all",
    together: bool = False,
    roles: str | None = None,
    split: str = "all",
    experts: str | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    most_frequent: int | None = None,
    each: bool = False,
    form: str | None = None,
    site: str | Sequence[str] = (),
    draws: int | None = None,
    seed: int = 0,
    lens: bool = False,
    model: str | None = None,
    batch_size: int = 128,
    device: str | None = None,
    max_memory: float | None = None,
    device_map: str | None = None,
    name: str | None = None,
    note: str | None = None,
    mirror: str | Path | None = None,
) -> str:
    """Run a captured run's examples again while something is changed in the model.

    Parameters
    ----------
    run
        The run, or an unambiguous beginning of its name.
    store
        The store's folder; None for ``MOEDB_STORE``, or ``./moedb-store``.
    kind, site
        What is changed, as the command's ``--kind`` and ``--site``; one, or several.
    layers, together, roles, split, experts, most_frequent, each, form, draws, seed, lens
        As the command's options.
    pairs
        The experts, as pairs (layer, expert); instead of ``experts``.
    model, batch_size, device, max_memory, device_map
        Where the model is, and what it runs on.
    name, note
        What the new run is called, and what it is.
    mirror
        Another store, as of a capture; the run that it was made of is not copied there.

    Returns
    -------
    str
        The new run. The same call again resumes it, or does nothing.

    Raises
    ------
    MoedbError
        As the command ``moedb intervene`` says.
    """
    from moedb.capture.interventions.choices import Choices
    from moedb.capture.interventions.parent_run import open_parent
    from moedb.capture.interventions.planning import Resources, plan_sweep
    from moedb.capture.interventions.running import run_sweep
    from moedb.commands.api.progress import RichProgress
    from moedb.queries.database import chosen_store
    from moedb.schemas.run_names import RunName, check_name, check_note

    check_name(name)
    check_note(note)
    place = chosen_store(store)
    check_mirror(mirror)
    choices = Choices(
        kinds=(kind,) if isinstance(kind, str) else tuple(kind),
        layers=layers,
        together=together,
        roles=roles,
        split=split,
        experts=experts,
        pairs=None if pairs is None else tuple(sorted(set(pairs))),
        most_frequent=most_frequent,
        each=each,
        form=form,
        sites=(site,) if isinstance(site, str) else tuple(site),
        draws=draws,
        seed=seed,
    )
    resources = Resources(model, batch_size, device, in_bytes(max_memory), device_map)
    named = RunName(name, note)
    planned = plan_sweep(open_parent(place, run), choices, resources, lens, named)
    with mirrored(place, planned.run_id, mirror), RichProgress() as progress:
        return run_sweep(planned, place, progress).run_id


@contextmanager
def _with_model(
    settings: Mapping[str, Any],
) -> "Iterator[tuple[dict[str, Any], ModelOutline | None]]":
    """The settings of a capture, and its model where that is loaded already."""
    model, tokenizer = settings.get("model"), settings.get("tokenizer")
    given = {name: value for name, value in settings.items() if name != "tokenizer"}
    if model is None or isinstance(model, str | Path):
        if tokenizer is not None:
            raise UsageError("tokenizer: only a model that is loaded comes with one")
        named = {} if model is None else {"model": str(model)}
        yield {**given, **named}, None
        return
    from moedb.capture.jobs.live_model import live_outline

    with live_outline(model, tokenizer, dense=bool(settings.get("dense"))) as outline:
        yield {**given, "model": outline.checkpoint.name}, outline


def _checked_store(store: str | Path | None, mirror: str | Path | None) -> Path:
    """The store's folder, after checking that there is a use in planning, and the mirror."""
    from moedb.queries.database import chosen_store
    from moedb.store.writing.writability import check_worth_capturing

    place = chosen_store(store)
    check_worth_capturing(place)
    check_mirror(mirror)
    return place


def _run(planned: "CapturePlan", store: Path, mirror: str | Path | None) -> str:
    from moedb.capture.pipeline.running import capture
    from moedb.commands.api.progress import RichProgress

    with mirrored(store, planned.run_id, mirror) as claim, RichProgress() as progress:
        return capture(planned, store, progress, claim=claim).run_id
