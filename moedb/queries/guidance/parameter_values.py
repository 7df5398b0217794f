"""Whether the values of a question's parameters name something that its runs hold.

A label key that is spelled wrong selects nothing, and nothing overlaps with nothing: a question
about it would be answered with zeros or with no rows, as if that were a result. So what a parameter
names is looked up first, see :data:`~.parameters.Named`, and so is whether the run holds what the
question reads. Only manifests, labels, examples and conditions are read for it, never decisions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moedb.errors import (
    ParameterError,
    RunNotFoundError,
    UsageError,
    did_you_mean,
    nearest_names,
)
from moedb.queries.questions.question import Question
from moedb.queries.reading.reader import SnapshotReader
from moedb.queries.reading.run_contents import (
    LABEL_TABLES,
    RunContents,
    Trial,
    as_ranges,
    contents,
    intervention_runs,
    trials_of,
)
from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from moedb.queries.questions.parameters import Named, Parameter
    from moedb.store.reading.snapshot import RunSnapshot

_LISTED = 20
_LONGEST_NAME = 40
_TABLES_OF: "Mapping[Named, tuple[str, ...]]" = {
    "label": LABEL_TABLES,
    "example-label": ("example_labels",),
    "example-label-or-none": ("example_labels",),
}
_WORDS_OF = {"run_labels": "of runs", "example_labels": "of examples", "token_labels": "of tokens"}
_CAPTURE = "moedb capture"
_MADE_BY = {
    "predictions": f"{_CAPTURE} qwen-ioi",
    "predictions.logit_diff": f"{_CAPTURE} qwen-ioi",
    "logit_lens": f"{_CAPTURE} qwen-ioi --lens last",
    "probe_scores": "moedb probe RUN --key KEY",
    "expert_labels": "moedb label-experts",
    "vocabulary": f"{_CAPTURE} text --arrays unembedding,expert_outputs",
    "expert_cosines": "the command that captured the run, with --expert-similarity",
    "label_verdicts": "moedb label-experts",
    "label_effects": "moedb check-labels RUN --labels NAME",
}
_HOLDS = {
    "predictions": "predictions",
    "predictions.logit_diff": "logit differences of two answers",
    "logit_lens": "readings of the logit lens",
    "routing": "routing",
    "expert_labels": "labels of experts",
    "label_verdicts": "verdicts on labels of experts",
    "label_effects": "effects of labelled experts",
    "tokens": "tokens",
    "router_stats": "statistics of the router",
    "router_mass": "probabilities of the router",
    "probe_scores": "probes",
    "expert_cosines": "cosines of experts' weights",
    "vocabulary": "vocabulary, as it keeps no unembedding",
}


def check_values(
    reader: SnapshotReader,
    question: Question,
    bound: Mapping[str, object],
    is_halved: bool = False,
) -> None:
    """Check that what a question is asked about is there.

    Parameters
    ----------
    reader
        What will be read.
    question
        The named query or the analysis.
    bound
        The values of its parameters, converted by :func:`~.parameters.bind`, with runs by their
        whole names. None is null; a parameter that is left out has a value that is not known, and
        nothing is said about it.
    is_halved
        Whether a group of tokens may be compared with itself, as its halves are.

    Raises
    ------
    ParameterError
        If a value names a split, label, layer, expert, position, condition, intervention or trial
        that the run does not have; the message says which it has.
    RunNotFoundError
        If the store has no trials, or the run is none, where the question is about trials.
    UsageError
        If the run holds nothing of what the question reads.
    """
    _Check(reader, question, bound, is_halved).run()


class _Check:
    def __init__(
        self,
        reader: SnapshotReader,
        question: Question,
        bound: Mapping[str, object],
        is_halved: bool,
    ) -> None:
        self.reader = reader
        self.is_halved = is_halved
        self.question = question
        self.bound = bound
        self.named: dict[Named, list[Parameter]] = {}
        for parameter in question.parameters:
            if parameter.named is not None:
                self.named.setdefault(parameter.named, []).append(parameter)

    def run(self) -> None:
        """Check everything; the first that is wrong is raised."""
        if "trial-setting" in self.named:
            asked = self._trials()
        elif isinstance(self.bound.get("run"), str):
            asked = contents(self.reader, str(self.bound["run"]))
            for run in self._runs():
                self._check_holdings(run)
        else:
            return
        about = asked
        if "intervention" in self.named:
            about = intervention_runs(self.reader, asked.runs[0].run_id)
            self._check_kinds(about)
        self._check_split(about)
        self._check_layer(asked)
        self._check_expert(asked)
        self._check_most_used()
        self._check_position(asked)
        self._check_condition(asked)
        self._check_labels(asked)
        self._check_additions(asked)
        check = _OF_QUESTION.get(self.question.name)
        if check is not None:
            check(self)

    @property
    def split(self) -> object:
        """The split that is read; every one where it is not known."""
        return self.bound.get("split", "all")

    def _runs(self) -> "list[RunSnapshot]":
        """The run, and the run that it is compared with."""
        named = [self.bound.get(name) for name in ("run", "run_b")]
        return [self.reader.snapshot.run(str(run)) for run in dict.fromkeys(named) if run]

    def refuse(self, what: str, hint: str | None = None) -> ParameterError:
        """The error that says what is wrong."""
        return ParameterError(f"{self.question.name}: {what}", hint)

    def _given(self, named: "Named") -> "Iterable[tuple[Parameter, Any]]":
        """The parameters that name such a thing, with their values, where these are known."""
        for parameter in self.named.get(named, ()):
            value = self.bound.get(parameter.name)
            if value is not None:
                yield parameter, value

    def _trials(self) -> RunContents:
        trials = trials_of(self.reader)
        if not trials:
            raise RunNotFoundError(
                f"no trials in {self.reader.snapshot.title}: {self.question.name} reads complete "
                "runs with the labels experts and trial, as captures of cifar-moe have them",
                "moedb capture cifar-moe",
            )
        settings: list[str] = []
        for parameter, value in self._given("trial-setting"):
            name = parameter.name
            settings.append(f"{name} {value!r}")
            values = {trial[name] for trial in trials} - {None}
            if value not in values:
                if parameter.type == "varchar":
                    valid = offer(value, values)
                else:
                    valid = f"valid: {', '.join(map(str, sorted(values))) or 'null alone'}"
                raise self.refuse(f"no trial with {' and '.join(settings)}; {valid}")
            trials = [trial for trial in trials if trial[name] == value]
        run = self.bound.get("run")
        if run is not None:
            trials = self._only_run(trials, str(run))
        runs = tuple(self.reader.snapshot.run(str(trial["run_id"])) for trial in trials)
        return RunContents(self.reader, runs, "trials")

    def _only_run(self, trials: Sequence[Trial], run: str) -> list[Trial]:
        found = [trial for trial in trials if trial["run_id"] == run]
        if not found:
            raise RunNotFoundError(
                f"{self.question.name}: run {run} is none of the {len(trials)} trials asked for: "
                "those are the newest complete runs of each trial, by their labels",
                "moedb sql 'from trials'",
            )
        return found

    def _check_holdings(self, run: "RunSnapshot") -> None:
        """Refuse a run that holds nothing of a table that the question reads."""
        for what in self.question.reads:
            table, _, column = what.partition(".")
            if run.n_rows(table) and not (column and self._is_null(run, table, column)):
                continue
            name = f"run {run.title} of the job {run.row['job']}"
            lacks = f"{self.question.name}: {name} has no {_HOLDS[what]}"
            parent = run.row["parent_run_id"]
            if not run.n_rows("tokens") and not run.is_complete:
                left = len(run.missing_units)
                raise UsageError(
                    f"{lacks} yet: {left} of {len(run.manifest.units)} units are missing",
                    "resume it by running its command again",
                )
            if parent is not None and table not in ("predictions", "logit_lens"):
                raise UsageError(
                    f"{lacks} of its own: it holds interventions on run {parent}",
                    f"--run {parent}",
                )
            if parent is not None and table == "logit_lens":
                raise UsageError(lacks, "intervene again, with --lens")
            made_by = _MADE_BY.get(what)
            raise UsageError(
                lacks, None if made_by is None else f"what has them is made by: {made_by}"
            )

    def _is_null(self, run: "RunSnapshot", table: str, column: str) -> bool:
        found = self.reader.sql(
            f"select 1 from {table} where {table}.run_id = $run and {column} is not null limit 1",  # noqa: S608
            {"run": run.run_id},
        )
        return not found.fetchall()

    def _check_kinds(self, about: RunContents) -> None:
        for _, given in self._given("intervention"):
            kinds = about.kinds()
            # without any interventions the analysis says so, and how they are made
            for kind in [name.strip() for name in str(given).split(",")] if kinds else []:
                if kind not in kinds:
                    raise self.refuse(
                        f"no interventions of kind {kind!r} in {about.named}; {offer(kind, kinds)}"
                    )

    def _check_additions(self, about: RunContents) -> None:
        asked: tuple[tuple[Named, str, str, str], ...] = (
            ("probe", "probe_scores", "probe", "probes named"),
            ("probe-key", "probe_scores", "key", "probes for"),
            ("effects", "label_effects", "effect_set", "effects named"),
        )
        for named, table, column, what in asked:
            for _, given in self._given(named):
                found = self.reader.sql(
                    f"select distinct {column} from {table} where run_id = $run",  # noqa: S608
                    {"run": about.runs[0].run_id},
                ).fetchall()
                there = [str(value) for (value,) in found]
                if given not in there:
                    raise self.refuse(
                        f"no {what} {given!r} in {about.named}; {offer(given, there)}"
                    )

    def _check_split(self, about: RunContents) -> None:
        for parameter in self.named.get("split", ()):
            if parameter.name not in self.bound:
                continue
            split = self.bound[parameter.name]
            if split == "all":
                continue
            splits = about.splits()
            if split is not None and split not in splits:
                raise self.refuse(
                    f"no split {split!r} in {about.named}; {offer(split, [*splits, 'all'])}"
                )
            if split is None and splits == ["corrupted"] and "intervention" not in self.named:
                raise self.refuse(
                    f"{about.named} has corrupted examples alone, which are left out unless asked "
                    "for",
                    "-p split corrupted",
                )

    def _check_layer(self, asked: RunContents) -> None:
        layers = list(asked.experts)
        for named in ("layer", "layer-before-another"):
            for _, layer in self._given(named):
                if layer not in layers:
                    raise self.refuse(
                        f"no MoE layer {layer} in {asked.named}; valid: {as_ranges(layers)}"
                    )
                if named == "layer-before-another" and layer == layers[-1]:
                    raise self.refuse(
                        f"no MoE layer comes after layer {layer} in {asked.named}; valid: "
                        f"{as_ranges(layers[:-1]) or 'none, as it has a single one'}"
                    )

    def _check_expert(self, asked: RunContents) -> None:
        for _, expert in self._given("expert"):
            layer = next((int(found) for _, found in self._given("layer")), None)
            of = asked.experts if layer is None else {layer: asked.experts[layer]}
            n_experts = max(of.values(), default=0)
            if not 0 <= int(expert) < n_experts:
                where = "" if layer is None else f"layer {layer} of "
                raise self.refuse(
                    f"no expert {expert} in {where}{asked.named}; valid: 0 to {n_experts - 1}"
                )

    def _check_most_used(self) -> None:
        runs = self._runs()
        for parameter, number in self._given("most-used"):
            n_experts = max(
                (int(row["n_experts"]) for run in runs for row in run.manifest.layers), default=0
            )
            if int(number) > n_experts:
                raise self.refuse(
                    f"{parameter.name} is {number}, and no layer has more than {n_experts} "
                    f"experts; valid: 1 to {n_experts}"
                )

    def _check_position(self, asked: RunContents) -> None:
        if self.bound.get("scope") == "example" or "split" not in self.bound:
            return
        for _, position in self._given("position"):
            longest = asked.longest(self.bound["split"])
            if int(position) >= longest:
                raise self.refuse(
                    f"no example of {asked.named} has a token at position {position}; valid: 0 to "
                    f"{longest - 1}"
                )

    def _check_condition(self, asked: RunContents) -> None:
        for _, condition in self._given("condition"):
            known = asked.conditions()
            if condition in known:
                continue
            run = asked.runs[0]
            children = [
                each.run_id
                for each in self.reader.snapshot.runs.values()
                if each.row["parent_run_id"] == run.run_id
            ]
            hint = f"conditions on it are in: {', '.join(children)}" if children else None
            raise self.refuse(
                f"no condition {condition} in {asked.named}; valid: {as_ranges(sorted(known))}",
                hint,
            )

    def _check_labels(self, asked: RunContents) -> None:
        if "label-value" in self.named:
            self._check_groups(asked)
            return
        for named, tables in _TABLES_OF.items():
            for parameter, key in self._given(named):
                if named == "example-label-or-none" and key == parameter.default:
                    continue
                self.check_label(asked, key, None, self.split, tables)

    def _check_groups(self, asked: RunContents) -> None:
        """Check the label that tells two groups apart, each in its own run."""
        ((parameter, *_),) = (self.named["label"],)
        if parameter.name not in self.bound:
            return
        key = self.bound[parameter.name]
        given = list(self._given("label-value"))
        for value, text in given:
            if key is None:
                raise self.refuse(
                    f"{value.name} is {text!r}, but the value of which label is not said",
                    f"-p {parameter.name} KEY; {self._keys_of(asked)}",
                )
            run_b = self.bound.get("run_b") if value.name.endswith("_b") else None
            if run_b is None and value.name.endswith("_b") and "run_b" not in self.bound:
                continue
            of = asked if run_b is None else contents(self.reader, str(run_b))
            self.check_label(of, key, text, self.split)
        known = all(value.name in self.bound for value in self.named["label-value"])
        if key is not None and not given and known:
            self.check_label(asked, key, None, self.split)
            names = " and ".join(value.name for value in self.named["label-value"])
            raise self.refuse(
                f"the key {key!r} is given, but none of its values",
                f"give {names}; {self._values_of(asked, key)}",
            )

    def _keys_of(self, asked: RunContents) -> str:
        return f"valid: {', '.join(map(_shown, asked.label_keys()))}"

    def _values_of(self, asked: RunContents, key: object) -> str:
        values, n_values = asked.values_near(key, "")
        return _offer_of_many("", values, n_values)

    def check_label(
        self,
        asked: RunContents,
        key: object,
        value: object,
        split: object,
        tables: Sequence[str] = LABEL_TABLES,
    ) -> None:
        """Refuse a label that no example of a split, and no token of one, has."""
        if asked.has_label(key, value, split, tables):
            return
        keys = asked.label_keys(tables)
        if key not in keys:
            elsewhere = [
                words
                for table, words in _WORDS_OF.items()
                if table not in tables and key in asked.label_keys([table])
            ]
            kind = " of examples" if tables == ("example_labels",) else ""
            what = f"no label key {str(key)!r}{kind} in {asked.named}"
            if elsewhere:
                what += f" (it is one {elsewhere[0]})"
            raise self.refuse(f"{what}; {offer(key, keys)}")
        if value is not None:
            values, n_values = asked.values_near(key, str(value))
            if value not in values:
                raise self.refuse(
                    f"no value {str(value)!r} of the label {_shown(key)} in {asked.named}; "
                    f"{_offer_of_many(str(value), values, n_values)}"
                )
        of = "label " + _shown(key) + ("" if value is None else f" with the value {_shown(value)}")
        splits = asked.splits_of_label(key, value)
        read = "all but corrupted" if split is None else f"split {_shown(split)}"
        raise self.refuse(
            f"the {of} is on no token of {asked.named} in the examples that are read "
            f"({read}); it is in: {', '.join(map(_shown, splits)) or 'no split'}",
            f"-p split {splits[0]}" if splits else None,
        )


def offer(given: object, valid: Iterable[str]) -> str:
    """Return the valid names as a hint, those nearest to what was given where they are many."""
    names = sorted(set(valid))
    return _offer_of_many(str(given), names, len(names))


def _offer_of_many(given: str, names: Sequence[str], n_names: int) -> str:
    if not names:
        return "there are none"
    shown = [_shown(name) for name in names]
    if n_names <= _LISTED:
        return did_you_mean(given, shown)
    near = nearest_names(given, shown)
    some = ", ".join(sorted(shown)[:5])
    return f"{near} there are {n_names}, such as {some}".lstrip()


def _shown(name: object) -> str:
    text = visible(str(name))
    if not text:
        return "''"
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _check_two_groups(check: _Check) -> None:
    """Refuse to compare a group of tokens with itself."""
    names = ("value_a", "value_b", "run_b")
    if any(name not in check.bound for name in names):
        return
    value_a, value_b, run_b = (check.bound[name] for name in names)
    may_be_same = check.is_halved and run_b is None
    if value_a == value_b and run_b in (None, check.bound["run"]) and not may_be_same:
        raise check.refuse(
            "both groups are the same tokens; their overlap says nothing",
            "-p key KEY -p value_a VALUE -p value_b VALUE, or -p run_b RUN, or --null (halves)",
        )
    _check_common_layers(check, ("layer",))


def _check_two_runs(check: _Check) -> None:
    """Refuse two runs without a layer or a token in common."""
    if not _check_common_layers(check, ("layer", "n_experts", "top_k")):
        return
    run, run_b = check.bound["run"], check.bound["run_b"]
    matched = check.reader.sql(
        """
        select 1
        from tokens
        join tokens as others
            on tokens.example_id = others.example_id
            and tokens.position = others.position
            and tokens.token_id is not distinct from others.token_id
        where tokens.run_id = $run and others.run_id = $run_b
        limit 1
        """,
        {"run": run, "run_b": run_b},
    )
    if not matched.fetchall():
        raise check.refuse(
            f"no token of run {run} stands at the same place in run {run_b}: they are runs over "
            "other examples"
        )


def _check_common_layers(check: _Check, columns: Sequence[str]) -> bool:
    """Refuse two runs without a layer that agrees in columns of ``moe_layers``."""
    run, run_b = check.bound.get("run"), check.bound.get("run_b")
    if run is None or run_b is None:
        return False
    of_run, of_other = (
        {tuple(int(row[name]) for name in columns) for row in found.manifest.layers}
        for found in (check.reader.snapshot.run(str(run)), check.reader.snapshot.run(str(run_b)))
    )
    if not of_run & of_other:
        alike = " of as many experts and the same top k" if len(columns) > 1 else ""
        raise check.refuse(f"runs {run} and {run_b} have no MoE layer{alike} in common")
    return True


_OF_QUESTION: Mapping[str, Callable[[_Check], None]] = {
    "overlap": _check_two_groups,
    "saturation": _check_two_runs,
}
