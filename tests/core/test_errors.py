from gpcore.errors import ConfigError, GpcoreError, InvalidError, MalformedError, ObserveError, PortError


def test_every_problem_is_told_at_once() -> None:
    error = ConfigError(["floor must be at least 0: -1", "ceiling must be at least 0: -2"])
    assert error.problems == ("floor must be at least 0: -1", "ceiling must be at least 0: -2")
    assert str(error) == "floor must be at least 0: -1; ceiling must be at least 0: -2"


def test_a_mistake_in_a_value_is_a_value_error_and_ours() -> None:
    for kind in (InvalidError, MalformedError, ConfigError):
        assert issubclass(kind, ValueError)
        assert issubclass(kind, GpcoreError)


def test_the_world_failing_is_no_mistake_in_a_value() -> None:
    assert issubclass(ObserveError, PortError)
    assert not issubclass(PortError, ValueError)
