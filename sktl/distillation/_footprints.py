"""What teacher and student cost, side by side, as a table."""

from sktl._engine._footprint import Footprint
from sktl._table import ReadableTable


class Footprints(ReadableTable):
    """The teacher and the student, one per row; made by ``footprint_``.

    Parameters
    ----------
    teacher, student : Footprint
        What was measured.
    agreement : float
        How much the student's answers agree with the teacher's: a share of equal labels, or R².
    """

    def __init__(self, teacher: Footprint, student: Footprint, *, agreement: float) -> None:
        columns = {
            "model": ["teacher", "student"],
            **{name: [getattr(teacher, name), getattr(student, name)] for name in Footprint._fields},
            "agreement": [1.0, agreement],
        }
        time = student.milliseconds / teacher.milliseconds
        size = ""
        if student.nbytes is not None and teacher.nbytes is not None:
            size = f" and {student.nbytes / teacher.nbytes:.3g} times its bytes"
        super().__init__(
            f"The student takes {time:.3g} times the teacher's time{size}",
            columns,
            ["model", "parameters", "not zero", "bytes", "multiply-accumulates", "ms per picture", "agreement"],
            [str, *[_count] * 4, "{:.3g}".format, "{:.3f}".format],
            names="model",
        )


def _count(value: "int | None") -> str:
    return "-" if value is None else f"{value:,}"
