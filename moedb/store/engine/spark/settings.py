"""Which Spark runs the SQL."""

import re
from dataclasses import dataclass, field

from moedb.errors import UsageError

_USER = re.compile(r"//[^/@]*@")


@dataclass(frozen=True)
class SparkSettings:
    """Which Spark runs the SQL.

    Attributes
    ----------
    master
        The address of a cluster's master, or ``local[N]``: N cores of this machine. Without this
        and ``remote`` it is what Spark's own configuration says, else ``local[*]``. A Spark that
        runs in this process already is used.
    remote
        The address of a Spark Connect server: ``sc://HOST:PORT``.

    Examples
    --------
    >>> import moedb
    >>> spark = moedb.SparkSettings(master="local[4]")
    >>> db = moedb.open("moedb-store", spark=spark)  # doctest: +SKIP
    >>> db.query("expert-frequency").df()  # doctest: +SKIP
    """

    master: str | None = None
    remote: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check them.

        Raises
        ------
        UsageError
            If both are given, or the second is no address of Spark Connect.
        """
        if self.master is not None and self.remote is not None:
            raise UsageError("master and remote are both given: one Spark runs the SQL")
        if self.master is not None and (not self.master or self.master.startswith("sc://")):
            raise UsageError(
                f"master {self.title!r}: expected local[N], or the address of a cluster's master",
                "a Spark Connect server is given by --remote",
            )
        if self.remote is not None and not self.remote.startswith("sc://"):
            raise UsageError(
                f"remote {self.title!r}: expected the address of a Spark Connect server",
                "--remote sc://HOST:15002",
            )

    @property
    def title(self) -> str:
        """What provenance and messages call it, without users and tokens of the address."""
        place = (self.remote or self.master or "its default master").partition(";")[0]
        return _USER.sub("//", place).rstrip("/")

    @property
    def has_secrets(self) -> bool:
        """Whether the address says more than where."""
        address = (self.remote or self.master or "").rstrip("/")
        return address not in ("", self.title)

    def without_secrets(self, text: str) -> str:
        """A message with nothing of the address but where it is."""
        address = self.remote or self.master or ""
        parts = [part.partition("=")[2] for part in address.split(";")[1:]]
        user = _USER.search(address)
        if user is not None:
            parts.append(user.group()[2:-1])
        text = text.replace(address, self.title) if address else text
        for part in sorted(filter(None, parts), key=len, reverse=True):
            text = text.replace(part, "***")
        return text
