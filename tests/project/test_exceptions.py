"""A test that does not apply to a method says so with `except_for`: the method exists, and there is a reason."""

import pytest
from every_method import excepted, named


def test_names():
    assert excepted(pytest.mark.except_for("GradCAM", "FEM", reason="blank").mark) == {"GradCAM", "FEM"}
    assert named(pytest.mark.slow_for("SESS").mark) == {"SESS"}


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (pytest.mark.except_for("GradCam", reason="blank"), "except_for names 'GradCam', which is no method"),
        (pytest.mark.except_for("GradCAM"), "keyword `reason`"),
        (pytest.mark.except_for(reason="blank"), "names of methods"),
    ],
    ids=["no method", "no reason", "no name"],
)
def test_mistakes_are_errors(mark, message):
    with pytest.raises(ValueError, match=message):
        excepted(mark.mark)


def test_slow_for_names_methods_too():
    with pytest.raises(ValueError, match="slow_for names 'SES'"):
        named(pytest.mark.slow_for("SES").mark)
