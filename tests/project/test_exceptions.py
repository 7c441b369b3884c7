"""A test that does not apply to a method says so with `except_for`: the method exists, and there is a reason."""

import pytest
from conftest import exceptions


def except_for(*methods, **reason):
    return pytest.mark.except_for(*methods, **reason).mark


def test_names_and_reasons():
    marks = [except_for("GradCAM", "FEM", reason="blank"), except_for("SESS", reason="slow")]
    assert exceptions(marks) == {"GradCAM": "blank", "FEM": "blank", "SESS": "slow"}


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ([except_for("GradCam", reason="blank")], "'GradCam', which is no method"),
        ([except_for("GradCAM")], "keyword `reason`"),
        ([except_for(reason="blank")], "names of methods"),
        ([except_for("FEM", reason="blank"), except_for("FEM", reason="slow")], "FEM twice"),
    ],
    ids=["no method", "no reason", "no name", "twice"],
)
def test_mistakes_are_errors(marks, message):
    with pytest.raises(ValueError, match=message):
        exceptions(marks)
