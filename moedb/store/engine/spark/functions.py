"""The functions that mean the same to DuckDB and to Spark, as they are said here."""

from sqlglot import exp

from moedb.errors import SqlRefusedError
from moedb.schemas.arrays import ARRAY_FUNCTIONS

_SAME: frozenset[type[exp.Expr]] = frozenset(
    {
        # rows together
        exp.Avg,
        exp.Count,
        exp.CountIf,
        exp.GroupConcat,
        exp.LogicalAnd,
        exp.LogicalOr,
        exp.Max,
        exp.Median,
        exp.Min,
        exp.Stddev,
        exp.StddevPop,
        exp.StddevSamp,
        exp.Sum,
        exp.Variance,
        exp.VariancePop,
        # over windows
        exp.CumeDist,
        exp.DenseRank,
        exp.FirstValue,
        exp.Lag,
        exp.LastValue,
        exp.Lead,
        exp.Ntile,
        exp.PercentRank,
        exp.Rank,
        exp.RowNumber,
        # numbers
        exp.Abs,
        exp.Ceil,
        exp.Exp,
        exp.Floor,
        exp.Greatest,
        exp.IsNan,
        exp.Least,
        exp.Ln,
        exp.Log,
        exp.Pow,
        exp.Round,
        exp.Sign,
        exp.Sqrt,
        # texts
        exp.Concat,
        exp.ConcatWs,
        exp.Contains,
        exp.EndsWith,
        exp.Left,
        exp.Length,
        exp.Lower,
        exp.RegexpLike,
        exp.Replace,
        exp.Reverse,
        exp.Right,
        exp.SplitPart,
        exp.StartsWith,
        exp.StrPosition,
        exp.Substring,
        exp.Trim,
        exp.Upper,
        # conditions
        exp.And,
        exp.Case,
        exp.Cast,
        exp.Coalesce,
        exp.Exists,
        exp.If,
        exp.Nullif,
        exp.Or,
        exp.TryCast,
    }
)
# What Spark has not, or has and means otherwise.
_OTHERWISE: dict[type[exp.Expr], str] = {
    exp.Array: "a list",
    exp.AtIndex: "an element of a list",
    exp.Bracket: "an element or a slice",
    exp.Columns: "columns(...)",
    exp.Glob: "glob",
    exp.Lambda: "a lambda",
    exp.Pivot: "pivot",
    exp.SimilarTo: "similar to",
    exp.Struct: "a struct",
    exp.TableSample: "a sample",
}
_OTHER_JOINS = ("ASOF", "POSITIONAL")


def check_functions(tree: exp.Expr) -> None:
    """Check that a statement says nothing that Spark lacks or means otherwise.

    Raises
    ------
    SqlRefusedError
        If it does.
    """
    for node in tree.walk():
        if isinstance(node, exp.Anonymous) and node.name.lower() in ARRAY_FUNCTIONS:
            raise SqlRefusedError(
                f"{node.name} reads rows of an array, which is done on one machine, not by Spark",
                "leave --engine spark out; in Python, spark=",
            )
        if name := _otherwise(node):
            raise SqlRefusedError(
                f"{name} is not known to mean the same in Spark's SQL",
                "write it with plainer functions, or leave --engine spark out",
            )


def _otherwise(node: exp.Expr) -> str | None:
    """What it is called, where it may mean something else."""
    if type(node) in _OTHERWISE:
        return _OTHERWISE[type(node)]
    if isinstance(node, exp.Distinct) and node.args.get("on"):
        return "distinct on"
    if isinstance(node, exp.Join) and str(node.args.get("method") or "").upper() in _OTHER_JOINS:
        return f"a join of the kind {node.args['method']}"
    if isinstance(node, exp.Select) and node.args.get("qualify") and node.is_star:
        return "qualify beside *"
    # in the place of a table it is a macro, or no relation of the store
    if isinstance(node, exp.Func) and not isinstance(node.parent, exp.Table):
        if type(node) in _SAME:
            return None
        name = node.name if isinstance(node, exp.Anonymous) else node.sql_name().lower()
        return f"the function {name}"
    return None
