"""What an intervention has to know of the job whose examples it changes: a task, as data.

A job whose examples have a right and a wrong answer of one token each, and twins that match them
token by token, is described by one entry of `TASKS`; nothing in ``interventions`` knows its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from moedb.capture.examples import Example
from moedb.capture.jobs.qwen_ioi import single_token_names
from moedb.capture.jobs.qwen_ioi.job import JOB as QWEN_IOI


@dataclass(frozen=True)
class Task:
    """How a job labels what it asks.

    Attributes
    ----------
    job
        The job.
    target, foil
        The labels of an example that hold the words that answer it rightly and wrongly.
    twins
        The labels of an example that hold the number of its twin.
    role
        The label of a token that says what part it plays.
    capture, capture_twins
        The command that captures such a run, and the one that gives it twins.
    """

    job: str
    target: str
    foil: str
    twins: tuple[str, ...]
    role: str
    capture: str
    capture_twins: str

    def twin_of(self, example: Example) -> int | None:
        """The number of an example's twin, if it has one."""
        found = next((example.labels[key] for key in self.twins if key in example.labels), None)
        return None if found is None else int(found)

    def answers(
        self, examples: tuple[Example, ...], tokenizer: Any
    ) -> list[tuple[int | None, int | None]]:
        """For each example the ids of the tokens that are its target and its foil."""
        words = sorted({each.labels[key] for each in examples for key in (self.target, self.foil)})
        ids, _ = single_token_names(words, tokenizer)
        return [
            (ids.get(each.labels[self.target]), ids.get(each.labels[self.foil]))
            for each in examples
        ]


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        QWEN_IOI: Task(
            job=QWEN_IOI,
            target="io",
            foil="s",
            twins=("twin", "twin_of"),
            role="role",
            capture="moedb capture qwen-ioi",
            capture_twins="moedb capture qwen-ioi --twins ...",
        )
    }
)
"""The tasks, by job."""
