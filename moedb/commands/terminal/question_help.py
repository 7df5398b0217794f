"""The help of one named query or analysis: its question, its parameters and its columns."""

from typing import TYPE_CHECKING

import click

from moedb.queries.results.visible import visible

if TYPE_CHECKING:
    from moedb.queries.analyses.analysis import Analysis
    from moedb.queries.questions.parameters import Parameter
    from moedb.queries.questions.query_file import NamedQuery

_NAME = "moedb.question"


class QuestionCommand(click.Command):
    """A command whose ``--help`` describes the question that its argument ``name`` names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note the name before ``--help`` ends everything, wherever it stands."""
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        # what was not given has a value of click's own
        name = given.get("name")
        ctx.meta[_NAME] = name if isinstance(name, str) else None
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the question's help where there is one, else the command's."""
        name = ctx.meta.get(_NAME)
        if name is None:
            super().format_help(ctx, formatter)
        else:
            write_question(name, ctx.command_path, formatter)


def write_question(name: str, command: str, formatter: click.HelpFormatter) -> None:
    """Write what a named query or an analysis answers, takes and gives.

    Raises
    ------
    QueryNotFoundError
        If there is none of that name.
    """
    from moedb.queries.analyses.registry import find_question
    from moedb.queries.questions.query_file import NamedQuery
    from moedb.queries.questions.question import SUBJECTS

    asked = find_question(name)
    needed = [parameter for parameter in asked.parameters if parameter.required]
    values = "".join(f" -p {parameter.name} VALUE" for parameter in needed)
    formatter.write_usage(command, f"{asked.name}{values} [OPTIONS]")
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(visible(asked.answers))
        formatter.write_paragraph()
        formatter.write_text(
            visible(f"{asked.title}. About {SUBJECTS[asked.subject]}. Source: {asked.source}.")
        )
        formatter.write_paragraph()
        if isinstance(asked, NamedQuery):
            named = ", ".join(f"{parameter.name} := ..." for parameter in needed)
            formatter.write_text(f"In SQL: from {asked.macro_name}({named})")
        else:
            formatter.write_text("Computed in Python; it is no macro of SQL.")
    if asked.parameters:
        with formatter.section("Parameters, each as -p NAME VALUE"):
            formatter.write_dl(
                [(f"{each.name} {each.type}", _told(each)) for each in asked.parameters]
            )
    with formatter.section("Columns"):
        formatter.write_dl([(column.name, visible(column.doc)) for column in asked.columns])
    if told := _doubt(asked):
        with formatter.section("How sure"):
            formatter.write_dl(told)
    with formatter.section("Options"):
        formatter.write_text(f"As those of every query: {command} --help")


def _doubt(asked: "NamedQuery | Analysis") -> list[tuple[str, str]]:
    """What options tell of which columns; why ``--ci`` tells nothing."""
    from moedb.queries.analyses.uncertainty.over_trials import OVER_TRIALS, how_over_trials
    from moedb.queries.analyses.uncertainty.without import WITHOUT
    from moedb.queries.questions.query_file import NamedQuery

    if asked.name in OVER_TRIALS:
        names = ", ".join(column.name for column in OVER_TRIALS[asked.name])
        return [("--ci", f"intervals of {names}: {how_over_trials(asked.name)}")]
    if asked.name in WITHOUT:
        return [("--ci", f"none: {WITHOUT[asked.name][0]}")]
    if not isinstance(asked, NamedQuery) or not asked.estimates:
        return []
    told = [("--ci", f"intervals of {', '.join(asked.estimates)}")]
    if asked.shuffled:
        told.append(("--null", f"what shuffled labels give of {', '.join(asked.shuffled)}"))
    if asked.even:
        told.append(("--null", f"what experts chosen alike give of {', '.join(asked.even)}"))
    return told


def _told(parameter: "Parameter") -> str:
    limits = parameter.limits_text
    more = f"{parameter.default_text}; {limits}" if limits else parameter.default_text
    default = more if parameter.required else f"default: {more}"
    return f"{visible(parameter.doc)}  [{default}]"
