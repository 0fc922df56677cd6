import pytest

from tests.support.homes import Home


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")
