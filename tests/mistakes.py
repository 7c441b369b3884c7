"""What the command line says of a mistake."""


def assert_one_line(call, message, capsys):
    """`call` ends with status 2, by returning it or by leaving, after one line on standard error with the message."""
    try:
        status = call()
    except SystemExit as exit_:
        status = exit_.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
