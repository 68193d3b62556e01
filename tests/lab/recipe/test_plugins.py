import pytest

from moebius.kit.errors import MoebiusError, StudyError
from moebius.lab.recipe.plugins import check_plugins, load_plugins


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"text = {str(tmp_path)!r}\n")
    return path


def test_a_file_that_is_named_twice_counts_once(plugin):
    (loaded,) = load_plugins([plugin, str(plugin)])
    assert loaded.file == str(plugin)
    assert loaded.record() == {"file": str(plugin), "sha256": loaded.digest}


def test_a_file_that_changes_meanwhile_is_refused(plugin):
    (loaded,) = load_plugins([plugin])
    loaded.load()
    plugin.write_text("text = 'another'\n")
    with pytest.raises(StudyError, match=r"mine\.py: the file has changed since the study was planned"):
        loaded.load()


def test_a_study_goes_on_with_the_plugins_that_it_began_with(plugin, tmp_path):
    (loaded,) = load_plugins([plugin])
    check_plugins(tmp_path, [], [loaded])
    check_plugins(tmp_path, [{"file": "elsewhere/renamed.py", "sha256": loaded.digest}], [loaded])
    with pytest.raises(
        StudyError, match=r"began with the plugin other\.py, and this command does not load it"
    ) as error:
        check_plugins(tmp_path, [{"file": "other.py", "sha256": "0" * 64}], [loaded])
    assert error.value.fix == "--plugin other.py"
    with pytest.raises(StudyError, match=r"mine\.py has changed since the study began \(SHA-256 000000000000… then,"):
        check_plugins(tmp_path, [{"file": "there/mine.py", "sha256": "0" * 64}], [loaded])


def test_a_file_that_fails_is_refused(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(MoebiusError, match="ZeroDivisionError"):
        load_plugins([tmp_path / "broken.py"])
