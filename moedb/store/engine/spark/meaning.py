"""What DuckDB and Spark write alike and compute otherwise, written as DuckDB means it."""

from collections.abc import Callable

from sqlglot import exp

_WHOLE = frozenset(
    {
        exp.DataType.Type.TINYINT,
        exp.DataType.Type.SMALLINT,
        exp.DataType.Type.INT,
        exp.DataType.Type.BIGINT,
    }
)
_NEVER_TEXT = "\x01"
"""An escape character that no pattern has; without one Spark's is the backslash."""


def as_duckdb_means(tree: exp.Expr) -> exp.Expr:
    """Return a statement whose divisions, casts, logarithms and patterns are DuckDB's in Spark.

    Parameters
    ----------
    tree
        A statement; it is changed.
    """
    # the inner ones first, as the outer ones take copies of them
    for node in reversed(list(tree.bfs())):
        change = _CHANGES.get(type(node))
        if change is None:
            continue
        changed = change(node)
        if changed is not node:
            if node is tree:
                tree = changed
            else:
                node.replace(changed)
    return tree


def _sum(node: exp.Expr) -> exp.Expr:
    """In any order: Spark knows none within a sum, and it shows in the last digit alone."""
    if isinstance(node.this, exp.Order):
        node.set("this", node.this.this)
    return node


def _division(node: exp.Expr) -> exp.Expr:
    """In double precision; by 0 it is infinite or NaN."""
    top, bottom = _double(node.this), _double(node.expression)
    if isinstance(node.expression, exp.Literal) and float(node.expression.this) != 0:
        return exp.Paren(this=exp.Div(this=top, expression=bottom))
    # the dividend once, as it may be a quotient itself: a / 0 is a times infinity
    is_zero = exp.EQ(this=bottom, expression=exp.Literal.number(0))
    one = _constant("1")
    divisor = exp.Case().when(is_zero, one).else_(bottom.copy())
    factor = exp.Case().when(is_zero.copy(), _constant("Infinity")).else_(one.copy())
    quotient = exp.Div(this=top, expression=divisor)
    return exp.Paren(this=exp.Mul(this=quotient, expression=factor))


def _logarithm(node: exp.Expr) -> exp.Expr:
    """Of 0 it is minus infinity, of less NaN; without a base it is that of 10."""
    base: exp.Expr | None = None
    value = node.this
    if isinstance(node, exp.Log):
        base, value = exp.Literal.number(10), node.this
        if node.expression is not None:
            base, value = node.this, node.expression
    value = _double(value)
    if base is None:
        log: exp.Expr = exp.Ln(this=value)
    else:
        log = exp.Log(this=base.copy(), expression=value)
    zero = exp.Literal.number(0)
    return (
        exp.Case()
        .when(exp.EQ(this=value.copy(), expression=zero), _constant("-Infinity"))
        .when(exp.LT(this=value.copy(), expression=zero.copy()), _constant("NaN"))
        .else_(log)
    )


def _cast(node: exp.Expr) -> exp.Expr:
    """To whole numbers it rounds."""
    kind, value = node.args["to"], node.this
    if kind.this is exp.DataType.Type.INT128:
        kind.replace(exp.DataType.build("decimal(38, 0)"))
        return node
    if kind.this is exp.DataType.Type.DOUBLE and isinstance(node, exp.TryCast):
        return _number_of_text(node)
    if kind.this not in _WHOLE or _is_whole(value):
        return node
    near = _cast_of(node, _call("rint", _double(value)))
    if _is_double(value):
        return near
    rounded = _cast_of(node, value.copy())
    rounded.set("to", exp.DataType.build("decimal(38, 0)"))
    exact = _cast_of(node, rounded)
    # which it is Spark knows before it runs; the others are then gone
    typed = _call("typeof", value.copy())
    is_float = exp.In(
        this=typed, expressions=[exp.Literal.string("float"), exp.Literal.string("double")]
    )
    is_exact = _call("regexp", typed.copy(), exp.Literal.string("decimal|string"))
    plain = _cast_of(node, value.copy())
    return exp.Case().when(is_float, near).when(is_exact, exact).else_(plain)


def _number_of_text(node: exp.Expr) -> exp.Expr:
    """Of a text that is none; to Java 3d and 7f are numbers."""
    if _is_whole(node.this) or _is_double(node.this):
        return node
    text = exp.Cast(this=node.this.copy(), to=exp.DataType.build("text"))
    is_java = _call("regexp", text, exp.Literal.string(r"[0-9.][dDfF]\s*$"))
    return exp.Case().when(is_java, exp.null()).else_(node.copy())


def _cast_of(node: exp.Expr, value: exp.Expr) -> exp.Expr:
    """The same cast of another value."""
    cast = node.copy()
    cast.set("this", value)
    return cast


def _pattern(node: exp.Expr) -> exp.Expr:
    """A backslash in it is a backslash."""
    if isinstance(node.parent, exp.Escape):
        return node
    return exp.Escape(this=node.copy(), expression=exp.Literal.string(_NEVER_TEXT))


def _is_whole(value: exp.Expr) -> bool:
    """Whether it is whole whatever the columns are."""
    value = value.unnest()
    if isinstance(value, exp.Sum):
        value = value.this.unnest()
    if isinstance(value, exp.Case):
        parts = [each.args["true"] for each in value.args["ifs"]]
        return all(map(_is_whole, [*parts, value.args.get("default") or exp.null()]))
    if isinstance(value, exp.Literal):
        return bool(value.is_int)
    return isinstance(value, exp.Count | exp.Parameter | exp.Placeholder | exp.Null)


def _is_double(value: exp.Expr) -> bool:
    """Whether it is a double whatever the columns are."""
    value = value.unnest()
    if isinstance(value, exp.Cast):
        return value.args["to"].this is exp.DataType.Type.DOUBLE
    if isinstance(value, exp.Case):
        return all(_is_double(each.args["true"]) for each in value.args["ifs"])
    if isinstance(value, exp.Mul | exp.Add | exp.Sub):
        return _is_double(value.this) or _is_double(value.expression)
    if isinstance(value, exp.Sum | exp.Max | exp.Min | exp.Coalesce | exp.Abs):
        return _is_double(value.this)
    return isinstance(value, exp.Div | exp.Avg | exp.Exp | exp.Sqrt | exp.Pow)


def _double(value: exp.Expr) -> exp.Expr:
    if _is_double(value):
        return value.copy() if isinstance(value, exp.Paren | exp.Func) else exp.paren(value)
    return exp.Cast(this=value.copy(), to=exp.DataType.build("double"))


def _constant(name: str) -> exp.Expr:
    text = exp.Literal.string(name)
    return exp.Cast(this=text, to=exp.DataType.build("double"))


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(arguments))


_CHANGES: dict[type[exp.Expr], Callable[[exp.Expr], exp.Expr]] = {
    exp.Div: _division,
    exp.Ln: _logarithm,
    exp.Log: _logarithm,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Like: _pattern,
    exp.ILike: _pattern,
    exp.Sum: _sum,
    exp.Avg: _sum,
    exp.StddevSamp: _sum,
}
