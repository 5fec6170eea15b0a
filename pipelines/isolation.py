"""The pages on which worker processes die: found one by one, and recorded, so that a shard loses nothing else.

A piece of work is run as it is, at no cost. Where its worker dies or stalls, the rest of the piece is *searched*: its rows
go through the stage one at a time, nothing is written, and the worker says which row it is at. A row on which a second
worker ends as well, alone, bears the blame: it gets a problem (`guard.CRASHED`, `guard.TIMED_OUT`). Then the piece is run
again, in batches as before, so that all other rows come out with the same bytes as they would have without it.

What dies at no row twice (killed from outside, a machine without memory) is run once more, then reported.
"""

from dataclasses import dataclass, field, replace

from pipelines.guard import TIMED_OUT
from pipelines.work import Work

MAX_MARKED = 32
"""Pages of one piece of work. With more of them the fault is ours, or the file is made to stop us."""
_MAX_MARKED_OF_ALL = 4
"""So many from the first row on, and none that survived: then it is this machine that cannot run the stage."""
_MAX_UNEXPLAINED = 2
_MAX_NAMED = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Run the piece and publish its record."""

    work: Work
    is_patient: bool = False
    """Whether each row was seen to keep its budget: then a batch has that of all its rows together."""


@dataclass(frozen=True, slots=True)
class Search:
    """Put the piece's rows through the stage one by one from `first_row` on, and write nothing."""

    work: Work
    first_row: int


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A row that a search is at. Its `name` is for people: the URL, or its place."""

    row: int
    name: str


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker in the middle of a piece."""

    problem: str
    """What a page would be given for it."""
    message: str
    """What a person is told if no page bears the blame."""
    row: OpenRow | None = None
    """Where a search was; None: between two rows, or not searching."""
    num_rows: int = 0
    """Rows that were done by then, of a run."""


Step = Run | Search | str
"""What to do next; a text says why the piece is given up."""


@dataclass(slots=True)
class Case:
    """What is known of one piece of work whose worker died."""

    work: Work
    marks: dict[int, str] = field(default_factory=dict)
    """Problem by row."""
    _names: list[str] = field(default_factory=list)
    _suspect: int | None = None
    _num_unexplained: int = 0
    _num_survived: int = 0
    _num_marks_before: int = 0
    _is_to_explain: bool = True
    _last: Death | None = None

    def after_death(self, task: Run | Search, death: Death) -> Step:
        """The next step after a worker ended in the middle of `task`."""
        self._last = death
        self._num_survived += death.num_rows
        if self.work.stage.budget is None:
            return self._unexplained() or Run(self.work)
        if isinstance(task, Run):
            self._num_marks_before = len(self.marks)
            # A batch of many slow pages may be too slow without any of them being so.
            self._is_to_explain = task.is_patient or death.problem != TIMED_OUT
            return Search(self._marked_work(), death.num_rows)
        if death.row is None:
            return self._unexplained() or task
        row = death.row.row
        if row == self._suspect:
            self._suspect = None
            self.marks[row] = death.problem
            self._names.append(f"{death.row.name} ({death.problem})")
            if len(self.marks) > MAX_MARKED or (len(self.marks) > _MAX_MARKED_OF_ALL and not self._num_survived):
                return self._too_many()
            return Search(self._marked_work(), row + 1)
        if self._suspect is not None and (given_up := self._unexplained()):  # the one before it was none
            return given_up
        self._suspect = row
        return Search(task.work, row)

    def after_search(self) -> Step:
        """The next step once a search has come to the end of the piece."""
        if self._suspect is not None:
            self._suspect = None
            if given_up := self._unexplained():
                return given_up
        found_none = len(self.marks) == self._num_marks_before
        if found_none and self._is_to_explain and (given_up := self._unexplained()):
            return given_up
        return Run(self._marked_work(), is_patient=True)

    def latest_mark(self) -> str | None:
        """Name and problem of the page that was marked last."""
        return self._names[-1] if self._names else None

    def _marked_work(self) -> Work:
        return replace(self.work, marks=dict(self.marks))

    def _unexplained(self) -> str | None:
        self._num_unexplained += 1
        if self._num_unexplained < _MAX_UNEXPLAINED or self._last is None:
            return None
        return self._last.message

    def _too_many(self) -> str:
        named = ", ".join(self._names[:_MAX_NAMED])
        more = f" and {len(self._names) - _MAX_NAMED} more" if len(self._names) > _MAX_NAMED else ""
        last = f"; the last: {self._last.message}" if self._last else ""
        wanted = f"at most {MAX_MARKED} in one source file" if self._num_survived else "some that one survives"
        return (
            f"got {len(self._names)} pages that a worker crashes or stalls on ({named}{more}{last}), "
            f"wanted {wanted}: take them out of it, or raise the page's budget in the recipe"
        )
